"""The contract that every model keeps: what it reads, how it is sampled, scored, initialised and saved."""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_gen._lightning import LightningModule, make_optimizers_again, pl
from lightning_gen.arguments import Checked, check_memory, check_types, refusing
from lightning_gen.errors import ConditionError, DataError
from lightning_gen.functional.bounds import bits_per_dim

Batch = dict[str, Any]
"""Named tensors of one batch: `image` (N, C, H, W) in [0, 1], `label` (N,), and so on (see `as_batch`)."""

Condition = Mapping[str, Any]
"""What a sample is conditioned on: the batch keys named in `condition_keys`."""


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


def pixel_frequencies(batches: Iterable[Any]) -> Tensor:
    """How often each pixel is white, `(D,)`, counting one white and one black image more than there are.

    A pixel that is always black may be white in the next image.
    """
    total, count = torch.zeros((), dtype=torch.float64), 0
    for batch in batches:
        images = as_batch(batch)["image"].flatten(1)
        total = total + images.sum(0, dtype=torch.float64).cpu()
        count += len(images)
    return (total + 1) / (count + 2)


def held_out_batches(trainer: Any) -> list[int | float]:
    """How many batches each held-out loader of this stage has."""
    return trainer.num_test_batches if trainer.testing else trainer.num_val_batches


def loader_suffix(trainer: Any, dataloader_idx: int) -> str:
    """What Lightning adds to the names of figures of one of several held-out loaders; nothing where there is one."""
    return f"/dataloader_idx_{dataloader_idx}" if len(held_out_batches(trainer)) > 1 else ""


class ImageModule(LightningModule, metaclass=Checked):
    """A LightningModule on images: it names and checks its batches, and its checkpoints load by themselves.

    Attributes:
        image_shape: `(C, H, W)` of one image, or `(C, T, H, W)` of one video.
        data_key: the batch key of what is modelled: images, videos, or keypoints `(N, P, 3)`.
    """

    image_shape: tuple[int, ...]
    data_key: Literal["image", "video", "keypoints"] = "image"

    def __init__(self) -> None:
        super().__init__()
        self._modes_checked: set[bool] = set()

    @property
    def video_shape(self) -> tuple[int, ...]:
        """`image_shape`, under the name that models of videos have for it: their first argument is `video_shape`."""
        return self.image_shape

    def as_batch(self, batch: Any) -> Batch:
        """Name a batch's tensors; the first one in training and the first in evaluation are checked.

        Raises:
            DataError: if the images have another shape than `image_shape`, or values that are not in [0, 1].
        """
        batch = as_batch(batch)
        if self.training not in self._modes_checked:  # Once each: reading a range waits for the device.
            self.check_batch(batch)
            self._modes_checked.add(self.training)
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
        low, high = images.min().item(), images.max().item()
        if not (low >= 0 and high <= 1):  # NaN fails too.
            raise DataError(
                f"Pixel values lie in [{low:g}, {high:g}]; expected floats in [0, 1] (divide 8-bit values by 255)."
            )

    def setup(self, stage: str) -> None:
        """Give each rank its own random stream: after `seed_everything` all of them would draw the same noise.

        Here and not in `on_fit_start`, which comes after the random state of a checkpoint has been restored.
        """
        if stage == "fit" and self.trainer.world_size > 1:
            torch.manual_seed(torch.initial_seed() + self.trainer.global_rank)

    def on_train_start(self) -> None:
        """After a tuner make optimizers and schedules again: they hold the step size and the number of steps before."""
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
        suffix = loader_suffix(self.trainer, dataloader_idx)
        named = {f"{name}{suffix}": value for name, value in figures.items()}
        self.log_dict(named, add_dataloader_idx=False, **settings)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only hyper-parameters that `__init__` accepts, and the class path to load them with."""
        accepted = inspect.signature(type(self).__init__).parameters
        given = checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {})
        checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY] = {
            **{key: value for key, value in given.items() if key in accepted},
            "_class_path": f"{type(self).__module__}.{type(self).__qualname__}",
        }


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
            Images in [0, 1], `(num_samples, *image_shape)`, on the module's device.

        Raises:
            ConditionError: if keys are missing or unknown, or rows do not match.
        """
        given = {"num_samples": num_samples} | ({"condition": condition} if condition is not None else {})
        kinds = {"num_samples": int, "condition": Mapping, "generator": torch.Generator | None}
        check_types("sample", kinds, given | {"generator": generator})
        with refusing(f"{type(self).__name__}.sample", given, ConditionError):
            checked = self.check_condition(condition, num_samples, generator)
            check_memory("sample", num_samples * math.prod(self.image_shape), given)
            with self.evaluating(), torch.no_grad():
                return self._sample(num_samples, checked, generator)

    @abstractmethod
    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        """Draw images: what `sample` does once the condition has been checked and the mode set."""

    def check_condition(
        self, condition: Condition | None, num_samples: int, generator: torch.Generator | None = None
    ) -> Condition | None:
        """Check a condition's keys and rows, and move its tensors to the module's device; draw it if there is none."""
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
            if len(value) != num_samples:
                raise ConditionError(f"The condition {key!r} has {len(value)} rows for {num_samples} samples.")
        return {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in condition.items()} or None

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

    def initialize_from(self, batches: Iterable[Any]) -> None:
        """Set what depends on the data (an output bias from pixel means, a reference batch), once before training.

        Called with the training batches at the start of the first `fit`, on the first rank; never on resume.
        """

    # Lightning's hooks ------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Run `initialize_from` once, on the first rank, and give its result to the others."""
        if hasattr(self, "initialized") and not self.initialized:
            if self.trainer.is_global_zero:
                devices = [self.device] if self.device.type == "cuda" else []
                with torch.random.fork_rng(devices):  # Training's own stream stays untouched.
                    torch.manual_seed(0)
                    self.initialize_from(self.trainer.fit_loop._data_source.dataloader())
                self.initialized.fill_(True)
            if self.trainer.world_size > 1:
                self.load_state_dict(self.trainer.strategy.broadcast(self.state_dict()))

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
            count, total, square = self.trainer.strategy.reduce(moments, reduce_op="sum").tolist()
            mean = total / count
            variance = max(square / count - mean**2, 0.0)
            errors = self.in_units((variance / max(count - 1, 1)) ** 0.5)
            scores = self.in_units(-mean) | {f"{name}_stderr": value for name, value in errors.items()}
            # They are the same on every rank already, but without sync_dist Lightning warns that they may not be.
            figures = {f"{stage}/{name}": value for name, value in scores.items()}
            self.log_of_loader(figures, dataloader_idx, sync_dist=True)
        self._log_probs.clear()
