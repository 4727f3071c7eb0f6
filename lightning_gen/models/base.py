"""The contract that every model keeps: what it reads, how it is sampled, scored, initialised and saved."""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from tqdm import tqdm

from lightning_gen._lightning import LightningModule, TrainingBatches, make_optimizers_again, pl, warn_of_mixture
from lightning_gen.arguments import check_constructors, check_memory, check_types, class_path, described, plain
from lightning_gen.errors import ConditionError, DataError, LightningGenError
from lightning_gen.functional.bounds import bits_per_dim

Batch = dict[str, Any]
"""Named tensors of one batch: `image` (N, C, H, W) in [0, 1], `label` (N,), and so on (see `as_batch`)."""

Condition = Mapping[str, Any]
"""What a sample is conditioned on: the batch keys named in `condition_keys`."""

PIXELS = ("image", "video", "source")
"""The keys of batches and conditions that hold pixels in [0, 1]."""

AT_ONCE = 2**24
"""Numbers in the images that are drawn together, 64 MiB: what a network computes on its way takes many times that."""

NO_BATCH = (
    "There is no training batch: the data have no image, or, under drop_last=True, fewer than batch_size; give a "
    "smaller batch_size, or more images."
)

ENOUGH_ROWS = "give data.drop_last=true, or data.batch_size of at least 2 that leaves no single one."


def as_batch(batch: Any) -> Batch:
    """Give any loader's batch its names.

    Args:
        batch: a mapping with named entries (`image`, `label`, `source`, `text`, `text_embedding`, `caption`, `box`,
            `keypoints`, `mask`, `video`), an `(image, label)` or `(image,)` sequence, or a bare image tensor; one
            with five dimensions holds videos.

    Returns:
        A dict with the same tensors under their names.

    Raises:
        DataError: if the batch is of another kind.

    >>> sorted(as_batch((torch.zeros(2, 1, 8, 8), torch.tensor([3, 7]))))
    ['image', 'label']
    """
    if isinstance(batch, Mapping):
        return dict(batch)
    if isinstance(batch, Tensor):
        batch = (batch,)
    if isinstance(batch, (tuple, list)) and len(batch) in (1, 2) and isinstance(batch[0], Tensor):
        return dict(zip(("video" if batch[0].ndim == 5 else "image", "label"), batch, strict=False))
    raise DataError(
        f"A batch of type {type(batch).__name__} was given; expected a dict with the key 'image', an (image, label) "
        "tuple, or an image tensor."
    )


def check_pixels(pixels: Any, key: str, error: type[DataError | ConditionError] = DataError) -> None:
    """Refuse integers in the place of pixels: whether 1 is white or all but black cannot be told."""
    if isinstance(pixels, Tensor) and pixels.dtype != torch.bool and not pixels.is_floating_point():
        raise error(f"The values of {key!r} are integers; expected floats in [0, 1] (divide 8-bit values by 255).")


def check_labels(
    labels: Any, num_classes: int, who: str, error: type[DataError | ConditionError] = DataError, least: int = 0
) -> None:
    """Refuse what is no row of class numbers: one-hot vectors, columns, floats, numbers out of range.

    Args:
        labels: what was given.
        num_classes: one more than the highest label.
        who: takes them, for the message.
        error: what is raised.
        least: the lowest label; -1 stands for none where a model takes that.
    """
    expected = f"integers of shape (N,) from {least} to {num_classes - 1}"
    if not isinstance(labels, Tensor) or labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        found = repr(labels)
        if isinstance(labels, Tensor):
            found = f"{'floats' if labels.is_floating_point() else 'integers'} of shape {tuple(labels.shape)}"
        raise error(f"{who} got label as {found}; expected {expected}.")
    if torch.compiler.is_compiling():  # A graph has no values to look at.
        return
    low, high = (bound.item() for bound in labels.long().aminmax())
    if low < least or high >= num_classes:
        raise error(f"{who} got a label in {low} to {high}; expected {expected}.")


def pixel_frequencies(batches: Iterable[Any]) -> Tensor:
    """How often each pixel is white, `(D,)`, counting one white and one black image more than there are.

    A pixel that is always black may be white in the next image.
    """
    total, count = torch.zeros((), dtype=torch.float64), 0
    for batch in batches:
        images = as_batch(batch)["image"].flatten(1).cpu()
        total = total + images.sum(0, dtype=torch.float64)
        count += len(images)
    return (total + 1) / (count + 2)


def held_out_batches(trainer: Any) -> list[int | float]:
    """How many batches each held-out loader of this stage has."""
    return trainer.num_test_batches if trainer.testing else trainer.num_val_batches


def loader_suffix(trainer: Any, dataloader_idx: int) -> str:
    """What Lightning adds to the names of figures of one of several held-out loaders; nothing where there is one."""
    return f"/dataloader_idx_{dataloader_idx}" if len(held_out_batches(trainer)) > 1 else ""


class FirstLook(Iterable[Batch]):
    """Training batches as a model sees them before it trains: named, the first one checked, and not too many.

    A pass ends with the data, after `model.init_images` images, or where training will see no more of them
    (`limit_train_batches`), unless the model needs more to begin. A bar shows one that takes longer than two seconds.

    Args:
        model: whose `as_batch` names the batches.
        batches: those of its Trainer, or any others.
        needed: images that the model cannot do without, however few training will see.
        after_each: called after each batch.

    Attributes:
        whole: whether the last pass came to the data's end.
    """

    def __init__(
        self, model: ImageModule, batches: Iterable[Any], needed: int, after_each: Callable[[], object]
    ) -> None:
        self.model, self.batches, self.needed, self.after_each = model, batches, needed, after_each
        self.whole = False

    def __iter__(self) -> Iterator[Batch]:
        model, images = self.model, 0
        self.whole, checked, model.modes_checked = False, model.modes_checked, set()
        try:
            name, quiet = type(model).__name__, getattr(self.batches, "quiet", False)
            with tqdm(desc=f"{name} looks at the data", unit=" images", delay=2, leave=False, disable=quiet) as bar:
                for number, batch in enumerate(self.batches, start=1):
                    batch = model.as_batch(batch)
                    yield batch
                    images += (size := len(batch[model.data_key]))
                    bar.update(size)
                    self.after_each()
                    enough = number >= getattr(self.batches, "limit", math.inf) and images >= self.needed
                    if enough or images >= model.init_images:
                        return
        finally:
            model.modes_checked = checked  # Training checks its own first batch: it may draw noise for that.
        if not images:
            raise DataError(NO_BATCH)
        self.whole = True


class ImageModule(LightningModule):
    """A LightningModule on images: it names and checks its batches, and its checkpoints load by themselves.

    Attributes:
        image_shape: `(C, H, W)` of one image, or `(C, T, H, W)` of one video.
        data_key: the batch key of what is modelled: images, videos, or keypoints `(N, P, 3)`.
        dtype: of the weights, and so of noise and of what a batch becomes.
        init_images: how many training images, at most, are looked at before training (see `FirstLook`).
        loaded_epoch: in which epoch, from 0, the checkpoint was written that this was loaded from.
        smallest_batch: 2 where batch normalisation would make zero of a single training image.
    """

    image_shape: tuple[int, ...]
    data_key: Literal["image", "video", "keypoints"] = "image"
    dtype: torch.dtype
    _given: Set[str] = frozenset()
    init_images: int = 100_000
    loaded_epoch: int = 0
    smallest_batch: int = 1

    def __init__(self) -> None:
        super().__init__()
        warn_of_mixture(type(self).__name__)
        self.modes_checked: set[bool] = set()
        self._epoch = 0

    def save_hyperparameters(self, *args: Any, frame: FrameType | None = None, **kwargs: Any) -> None:
        """Keep the constructor's arguments, once ours are checked against their annotations, as plain values.

        Raises:
            DataError: if one is of another type, or out of bounds.
        """
        current = inspect.currentframe()
        frame = frame or (current and current.f_back)
        self._given |= check_constructors(self, frame)
        super().save_hyperparameters(*args, frame=frame, **kwargs)
        self.hparams.update(plain(self.hparams))

    @property
    def arguments(self) -> dict[str, Any]:
        """The hyper-parameters that make this model again: those that its constructor was given, as they are now."""
        parameters = inspect.signature(type(self).__init__).parameters.values()
        names = {
            parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD
        } | self._given
        whole = getattr(self, "_hparams_name", None)
        if whole in names and whole not in self.hparams:  # save_hyperparameters(config) keeps what is in it.
            return {whole: plain(self.hparams)}
        return {name: plain(value) for name, value in self.hparams.items() if name in names}

    @property
    def video_shape(self) -> tuple[int, ...]:
        """`image_shape`, under the name that models of videos have for it: their first argument is `video_shape`."""
        return self.image_shape

    def bfloat16(self) -> Any:
        """Bring all weights into bfloat16; Lightning's `half`, `float` and `double` set `dtype`, PyTorch's this not."""
        return self.to(torch.bfloat16)

    def converted(self, values: Mapping[str, Any]) -> Batch:
        """Values with their tensors as the module computes: floats and booleans in its dtype, integers as int64.

        What is so already stays the same tensor.
        """

        def convert(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return value.to(self.dtype if value.is_floating_point() or value.dtype == torch.bool else torch.int64)

        return {key: convert(value) for key, value in values.items()}

    def as_batch(self, batch: Any) -> Batch:
        """Name a batch's tensors and convert them; the first one in training and in evaluation is checked.

        Raises:
            DataError: if the images have another shape than `image_shape`, are integers or not in [0, 1].
        """
        batch = self.converted(as_batch(batch))
        if self.training not in self.modes_checked:  # Once each: reading a range waits for the device.
            self.check_batch(batch)
            self.modes_checked.add(self.training)
        if self.training and len(batch[self.data_key]) < self.smallest_batch:
            raise DataError(
                f"A batch of one {self._noun} was given, of which batch normalisation makes zero; {ENOUGH_ROWS}"
            )
        return batch

    def check_batch(self, batch: Batch) -> None:
        """Check what a batch holds against what the model takes; models with labels or codes check more."""
        if self.data_key not in batch:
            raise DataError(f"The batch holds {sorted(batch)}; {type(self).__name__} needs {self.data_key!r}.")
        images = batch[self.data_key]
        if tuple(images.shape[1:]) != tuple(self.image_shape):
            raise DataError(
                f"The data have the shape {tuple(images.shape[1:])}, the model was made for {self.data_key}_shape="
                f"{tuple(self.image_shape)}; give both the same (the command line does, if {self.data_key}_shape is "
                "not given)."
            )
        check_pixels(images, self.data_key)
        low, high = (bound.item() for bound in images.to(self.dtype).aminmax())
        if not (low >= 0 and high <= 1):  # NaN fails too.
            raise DataError(
                f"Pixel values lie in [{low:g}, {high:g}]; expected floats in [0, 1] (divide 8-bit values by 255)."
            )

    @property
    def _noun(self) -> str:
        """What a batch has rows of, in messages."""
        return "video" if self.data_key == "video" else "image"

    def check_last_batch(self) -> None:
        """Refuse an epoch whose last batch would be too small, where lengths are known, before the first one.

        Raises:
            DataError: if it would.
        """
        loader = self.trainer.train_dataloader
        if not isinstance(loader, DataLoader) or loader.batch_size is None or loader.drop_last:
            return
        if isinstance(loader.dataset, IterableDataset) or self.trainer.num_training_batches < len(loader):
            return
        number = len(loader.sampler)  # type: ignore[arg-type]
        if 0 < (number % loader.batch_size or loader.batch_size) < self.smallest_batch:
            raise DataError(
                f"{number:,} training {self._noun}s in batches of {loader.batch_size:,} leave a single one for the end "
                f"of the epoch, of which batch normalisation in {type(self).__name__} makes zero; {ENOUGH_ROWS}"
            )

    def setup(self, stage: str) -> None:
        """Give each rank its own random stream: after `seed_everything` all of them would draw the same noise.

        Here and not in `on_fit_start`, which comes after the random state of a checkpoint has been restored.
        """
        if stage == "fit" and self.world_size > 1:
            torch.manual_seed(torch.initial_seed() + self.global_rank)

    def on_fit_end(self) -> None:
        """Say that there was nothing to train on, over which Lightning passes with a warning."""
        if self.trainer.num_training_batches == 0 and self.trainer.limit_train_batches != 0:
            raise DataError(NO_BATCH)

    # One process or several, under a Trainer, Fabric or a loop of one's own ---------------------------------------

    @property
    def current_epoch(self) -> int:
        """The Trainer's epoch, from 0; without one, as under Fabric, what a loop of one's own has set it to."""
        return self._epoch if self._trainer is None else self._trainer.current_epoch

    @current_epoch.setter
    def current_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    @property
    def world_size(self) -> int:
        """How many processes train together."""
        return 1 if self._trainer is None and self._fabric is None else self.trainer.world_size

    @property
    def global_rank(self) -> int:
        """Which of them this is; Lightning's own property is 0 in all of Fabric's."""
        return 0 if self._trainer is None and self._fabric is None else self.trainer.global_rank

    @property
    def is_last_batch(self) -> bool:
        """Whether the Trainer's epoch ends with this batch; without a Trainer nobody knows."""
        return self._trainer is not None and self._trainer.is_last_batch

    def reduce(self, values: Tensor, reduce_op: Literal["sum", "mean"]) -> Tensor:
        """The sum or the mean of a tensor over all processes, on each of them."""
        if self._fabric is not None:
            return self._fabric.strategy.all_reduce(values, reduce_op=reduce_op)
        return values if self._trainer is None else self._trainer.strategy.reduce(values, reduce_op=reduce_op)

    def from_first_rank(self, value: Any) -> Any:
        """The first process's value, on each of them."""
        return value if self.world_size == 1 else self.trainer.strategy.broadcast(value)

    def look_at_data(
        self, function: Callable[[FirstLook], Any], batches: Iterable[Any] | None = None, needed: int = 0
    ) -> Any:
        """What a function makes of training batches on the first rank, on every rank.

        The others hear of each batch: one silence as long as the whole could outlast their patience, half an hour.

        Args:
            function: of the batches.
            batches: to be looked at; the Trainer's if None.
            needed: see `FirstLook`.
        """
        if self.global_rank > 0:
            while not (answer := self.from_first_rank(())):
                pass
            return answer[0]
        given = TrainingBatches(self.trainer) if batches is None else batches
        if isinstance(given, TrainingBatches) and given.empty:
            raise DataError(NO_BATCH)
        result = function(FirstLook(self, given, needed, lambda: self.from_first_rank(())))
        return self.from_first_rank((result,))[0]

    def training_steps(self) -> int | None:
        """How many steps `fit` makes in all, for schedules; None if nobody can know, as in a loop of one's own.

        Raises:
            DataError: if the Trainer could be told: it has no end, or data without a length.
        """
        if self._trainer is None or self._trainer.limit_train_batches == 0:
            return None
        steps = self._trainer.estimated_stepping_batches
        if not 0 <= steps < math.inf:
            raise DataError(
                f"The step size of {type(self).__name__} rises and falls over all steps, and the training data have no "
                "length, or the training no end; give the Trainer max_steps, or limit_train_batches and max_epochs."
            )
        return max(int(steps), 1)

    # What is saved and logged -------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Check the last batch, and after a tuner make optimizers and schedules again.

        They hold the step size and the number of steps before.
        """
        self.check_last_batch()
        tuners = (pl.callbacks.LearningRateFinder, pl.callbacks.BatchSizeFinder)
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        if self.trainer.global_step == 0 and any(isinstance(callback, tuners) for callback in callbacks):
            make_optimizers_again(self.trainer)

    def figure_protocols(self, stage: str) -> dict[str, str]:
        """The figures that validation and test log by themselves, as `{stage}/{name}`, for tables.

        Args:
            stage: `val` or `test`.

        Returns:
            In a few words how each is computed, by its name.
        """
        return {}

    def log_of_loader(self, figures: Mapping[str, Any], dataloader_idx: int, **settings: Any) -> None:
        """Log, at the end of an epoch, what was gathered over a held-out loader; a step's figures Lightning names."""
        suffix = "" if self._trainer is None else loader_suffix(self._trainer, dataloader_idx)
        named = {f"{name}{suffix}": value for name, value in figures.items()}
        self.log_dict(named, add_dataloader_idx=False, **settings)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember how long the model had been trained."""
        self.loaded_epoch = checkpoint.get("epoch", 0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what makes this model and its data module again: plain arguments, and beside them the classes."""
        checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY] = self.arguments
        for key in (self.CHECKPOINT_HYPER_PARAMS_NAME, self.CHECKPOINT_HYPER_PARAMS_TYPE):
            checkpoint.pop(key, None)  # Arguments are kept by their names in a dict, whatever they were given in.
        parts = {self.CHECKPOINT_HYPER_PARAMS_KEY: self}
        if datamodule := getattr(self._trainer, "datamodule", None):
            parts[datamodule.CHECKPOINT_HYPER_PARAMS_KEY] = datamodule
        checkpoint["class_paths"] = {key: class_path(part) for key, part in parts.items()}


class GenerativeModule(ImageModule):
    """Base of all generative models: a module that can be sampled.

    Images cross its borders as float32 in [0, 1], `(N, C, H, W)`; videos `(N, C, T, H, W)`.

    Attributes:
        condition_keys: the batch keys that a condition holds; empty for an unconditional model.
        optional_condition_keys: those of a condition that need not be given, such as an image to complete.
        context_frames: how many frames of a video under the condition `video` are given; samples begin with them.
        no_density: why samples must not be scored as draws from a distribution; empty where they may.
    """

    condition_keys: tuple[str, ...] = ()
    optional_condition_keys: tuple[str, ...] = ()
    context_frames: int = 0
    no_density: str = ""
    initialized: Tensor

    def __init__(self) -> None:
        super().__init__()
        if type(self).initialize_from is not GenerativeModule.initialize_from:
            self.register_buffer("initialized", torch.tensor(False))

    @property
    def can_sample(self) -> bool:
        """Whether there is something to sample yet; models that train in phases say when. Evaluation waits for it."""
        return True

    # Sampling ---------------------------------------------------------------------------------------------------

    def forward(self, z: Tensor, condition: Condition | None = None) -> Tensor:
        """The images that the model makes of latent variables: its `decode`, in the mode that the module is in.

        `torch.export`, `to_onnx` and `torch.compile` take the module by this, in eval mode and with a condition of
        tensors. A translator (`Pix2Pix`) takes its sources. What they cannot take, and why: models that draw pixel by
        pixel, each pixel seen by the next (NADE, EoNADE, PixelRNN, VPN), are no graph of noise and have `sample` alone;
        a caption is no tensor, its `text_embedding` is; of DGNAM and PPGN they take what makes images of codes, not the
        chain that finds these by a gradient (and a PPGN of variant x has no codes).

        Args:
            z: as `sample_latent` draws it, `(N, ...)`, of the module's `dtype`.
            condition: as for `sample`, N rows; drawn if None where the model knows how.

        Returns:
            Images in [0, 1], `(N, *image_shape)`.

        Raises:
            LightningGenError: if the model has no `decode`.
            ConditionError: if the condition does not fit; what values it holds is not looked at in a compiled graph.
        """
        decode: Any = getattr(self, "decode", None)
        if decode is None:
            raise LightningGenError(
                f"{type(self).__name__} makes its images draw by draw and not of a latent variable; call sample(n)."
            )
        return decode(z, condition)

    def sample(
        self, num_samples: int, condition: Condition | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw images from the model, in eval mode and without gradients; the training mode is restored after.

        Args:
            num_samples: how many.
            condition: a dict with exactly the keys in `condition_keys` and `optional_condition_keys`, each with
                `num_samples` rows.
            generator: source of randomness on the module's device; the global one if None.

        Returns:
            Images in [0, 1], `(num_samples, *image_shape)`, float32 whatever the weights are, on the module's device.

        Raises:
            ConditionError: if keys are missing or unknown, or rows do not match.
        """
        given = {"num_samples": num_samples} | ({"condition": condition} if condition is not None else {})
        kinds = {"num_samples": int, "condition": Mapping, "generator": torch.Generator | None}
        check_types("sample", kinds, given | {"generator": generator})
        checked = self.check_condition(condition, num_samples, generator)
        check_memory("sample", num_samples * math.prod(self.image_shape), given)
        with self.evaluating(), torch.no_grad():
            most = max(AT_ONCE // math.prod(self.image_shape), 1)
            if num_samples <= most:
                return self._sample(num_samples, checked, generator).float()
            images = []
            for start in range(0, num_samples, most):
                rows = slice(start, min(start + most, num_samples))
                part = None if checked is None else {key: values[rows] for key, values in checked.items()}
                images.append(self._sample(rows.stop - start, part, generator).float())
            return torch.cat(images)

    @abstractmethod
    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        """Draw images: what `sample` does once the condition has been checked and the mode set."""

    def check_condition(
        self, condition: Condition | None, num_samples: int, generator: torch.Generator | None = None
    ) -> Condition | None:
        """Check a condition's keys and rows, and bring its tensors to the module's device and types.

        One is drawn if there is none.
        """
        if num_samples < 1:
            raise ConditionError(f"num_samples is {num_samples}; expected at least 1.")
        if condition is None:
            return self.draw_condition(num_samples, generator) if self.condition_keys else None
        keys = (*self.condition_keys, *self.optional_condition_keys)
        expected = ", ".join(keys) or "no condition"
        if unknown := sorted(set(condition) - set(keys)):
            raise ConditionError(f"{type(self).__name__} does not know the condition {unknown}; it takes {expected}.")
        if missing := sorted(set(keys) - set(condition)):
            raise ConditionError(f"{type(self).__name__} needs the condition {missing} as well; it takes {expected}.")
        for key, value in condition.items():
            if not hasattr(value, "__len__") or (isinstance(value, Tensor) and not value.ndim):
                raise ConditionError(
                    f"The condition {key!r} is {described(value)}; expected {num_samples} rows, one for each sample."
                )
            rows = value.shape[0] if isinstance(value, Tensor) else len(value)  # Not len: that of a tensor in a graph
            if rows != num_samples:  # would be a constant.
                raise ConditionError(f"The condition {key!r} has {rows} rows for {num_samples} samples.")
            if key in PIXELS:
                check_pixels(value, key, ConditionError)
        moved = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in condition.items()}
        return self.converted(moved) or None

    def draw_condition(self, num_samples: int, generator: torch.Generator | None = None) -> Condition:
        """Draw a condition where none is given; class-conditional models draw labels as frequent as in training."""
        raise ConditionError(
            f"{type(self).__name__} needs a condition with {', '.join(self.condition_keys)} for {num_samples} samples."
        )

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Put every submodule in eval mode, and each back into its own mode after."""
        training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True

    # Before training --------------------------------------------------------------------------------------------

    @property
    def needed_images(self) -> int:
        """How many images `initialize_from` cannot do without, however few training will see."""
        return 0

    def initialize_from(self, batches: Iterable[Any]) -> None:
        """Set what depends on the data (an output bias from pixel means, a reference batch); see `initialize`."""

    def initialize(self, batches: Iterable[Any] | None = None) -> None:
        """Let `initialize_from` look at training batches on the first rank, and give its result to the others; once.

        A Trainer's `fit` does it, but not on resume. A loop of one's own calls it before its first step, on each rank.

        Args:
            batches: of all ranks, as the first rank is the only one to look at them; the Trainer's own if None.
        """
        if not hasattr(self, "initialized") or self.initialized:
            return

        def begin(look: FirstLook) -> dict[str, Any]:
            self.initialize_from(look)
            self.initialized.fill_(True)
            return self.state_dict()

        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(0)  # Training's own stream stays untouched.
            state = self.look_at_data(begin, batches, self.needed_images)
        if self.global_rank > 0:
            self.load_state_dict(state)

    # Lightning's hooks ------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Take what depends on the data from training batches."""
        if self.trainer.limit_train_batches != 0:  # Else nothing is trained.
            self.initialize()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Nothing by itself; the step lets evaluation callbacks run."""

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Nothing by itself; the step lets evaluation callbacks run."""

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Sample as many images as the batch has rows, under its conditions."""
        batch = as_batch(batch)
        condition = {key: batch[key] for key in self.condition_keys if key in batch}
        return self.sample(len(next(iter(batch.values()))), condition or None)


class LikelihoodModule(GenerativeModule):
    """A model that gives a likelihood, exact or as a lower bound.

    Attributes:
        likelihood: whether `log_prob` is exact or a lower bound.
        discrete: whether `log_prob` is the log-probability of discrete pixels; then bits per dimension are logged.
        binary: whether these pixels are black or white; then grey ones are refused.
    """

    likelihood: Literal["exact", "bound"]
    discrete: bool = True
    binary: bool = False

    def __init__(self) -> None:
        super().__init__()
        self._log_probs: dict[int, list[Tensor]] = defaultdict(list)  # of each held-out loader

    @abstractmethod
    def log_prob(self, images: Tensor, condition: Condition | None = None) -> Tensor:
        """Log-likelihood of each image, or a lower bound on it.

        Args:
            images: `(N, *image_shape)` in [0, 1].
            condition: as for `sample`.

        Returns:
            Nats, `(N,)`.
        """

    def check_batch(self, batch: Batch) -> None:
        """Also refuse grey pixels where the likelihood is one of black and white ones."""
        super().check_batch(batch)
        images = batch[self.data_key]
        if self.binary and not ((images == 0) | (images == 1)).all():
            raise DataError(
                f"{type(self).__name__} scores black and white pixels and got grey ones, for which its value is no "
                "probability. Give the data binarization=dynamic (each pixel is drawn with its grey value as the "
                "probability of white, anew in each epoch) or, for numbers comparable with published ones, "
                "MNISTDataModule binarization=fixed (drawn once for everybody); a VAE can take decoder=gaussian, "
                "a DRAW decoder=intensity."
            )

    def figure_protocols(self, stage: str) -> dict[str, str]:
        protocol = self.likelihood_protocol(stage)
        return {"nll": f"nats, {protocol}", "bits_per_dim": f"bits per dimension, {protocol}"}

    def in_units(self, nll: float) -> dict[str, float]:
        """A negative log-likelihood, or the standard error of one, in all the units that are logged, by name."""
        return {"nll": nll} | ({"bits_per_dim": bits_per_dim(nll, self.image_shape)} if self.discrete else {})

    def likelihood_protocol(self, stage: str) -> str:
        """How `{stage}/nll` is computed, in a few words, for tables."""
        return "exact log-likelihood" if self.likelihood == "exact" else "lower bound"

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score a batch of held-out images."""
        self._log_probs[dataloader_idx].append(self._score(self.as_batch(batch)))

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score a batch of test images."""
        self._log_probs[dataloader_idx].append(self._score(self.as_batch(batch)))

    def _score(self, batch: Batch) -> Tensor:
        condition = {key: batch[key] for key in self.condition_keys}
        return self.log_prob(batch[self.data_key], condition or None)

    def on_validation_epoch_end(self) -> None:
        """Log `val/nll` and `val/bits_per_dim`, each with its standard error, `..._stderr`."""
        self._log_likelihood("val")

    def on_test_epoch_end(self) -> None:
        """Log `test/nll` and `test/bits_per_dim`, each with its standard error, `..._stderr`."""
        self._log_likelihood("test")

    def _log_likelihood(self, stage: str) -> None:
        """Mean and standard error over all images of all ranks: sums of every rank, in float64 where there is one."""
        for dataloader_idx, parts in self._log_probs.items():
            log_probs = torch.cat(parts)
            wide = torch.float32 if log_probs.device.type == "mps" else torch.float64
            log_probs = log_probs.to(wide)
            moments = torch.stack([log_probs.new_tensor(len(log_probs)), log_probs.sum(), log_probs.square().sum()])
            count, total, square = self.reduce(moments, "sum").tolist()
            mean = total / count
            variance = max(square / count - mean**2, 0.0)
            errors = self.in_units((variance / max(count - 1, 1)) ** 0.5)
            scores = self.in_units(-mean) | {f"{name}_stderr": value for name, value in errors.items()}
            # They are the same on every rank already, but without sync_dist Lightning warns that they may not be.
            figures = {f"{stage}/{name}": value for name, value in scores.items()}
            self.log_of_loader(figures, dataloader_idx, sync_dist=True)
        self._log_probs.clear()
