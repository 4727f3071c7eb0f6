"""What the callbacks share that look at a model's samples: when they run, under which conditions, what they leave."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_gen._lightning import Callback, LightningModule, Trainer, pl, reads_after_training
from lightning_gen.arguments import Size, check_arguments
from lightning_gen.callbacks.foreign import Foreign
from lightning_gen.callbacks.randomness import own_randomness
from lightning_gen.errors import LightningGenError
from lightning_gen.models.base import Batch, Condition, GenerativeModule, as_batch

Stage: TypeAlias = Literal["val", "test"]
Labels: TypeAlias = list[int] | Literal["all"]


class Figure(NamedTuple):
    """One number about a model, with what a reader needs to judge it."""

    name: str
    value: float
    standard_error: float | None
    real: float | None  # the same figure with as many real training images in the place of the samples
    protocol: str
    stage: str  # "val" or "test"
    epoch: int
    higher_is_better: bool | None = None  # None where it is not known, or neither is


def log_folder(trainer: Trainer) -> Path:
    """The folder of this run, that of no other; to be called on every rank.

    Lightning's `trainer.log_dir` is one folder for all runs of W&B, and none for MLflow with a database; there it is
    the one in which the run's `checkpoints` lie: `save_dir/name/version` of the first logger. So it is without one,
    where the ModelCheckpoint was told of one.
    """
    if trainer.loggers and getattr(trainer.loggers[0], "log_dir", None) is None:
        logger = trainer.loggers[0]
        version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
        folder = Path(logger.save_dir or trainer.default_root_dir, str(logger.name), version)
        return Path(trainer.strategy.broadcast(folder))  # On other ranks W&B knows no version.
    checkpoints = Path(getattr(trainer.checkpoint_callback, "dirpath", None) or "")
    if not trainer.loggers and checkpoints.name == "checkpoints":
        return Path(trainer.strategy.broadcast(checkpoints)).parent
    return Path(trainer.log_dir or trainer.default_root_dir)


def trained_epoch(trainer: Trainer) -> int:
    """The epoch, from 0, that a model has been trained to; in a test Lightning's own counter may stand at 0."""
    if trainer.state.fn == "fit":
        return trainer.current_epoch
    return max(trainer.current_epoch, getattr(trainer.lightning_module, "loaded_epoch", 0))


def fresh_loader(trainer: Any, split: Literal["train", "val"]) -> Iterable[Any] | None:
    """A loader that training does not share: to iterate over one with persistent workers would disturb its epoch.

    Returns:
        The data module's, the first of several, or one over the data set of the loader that the trainer was given; None
        where there is none.
    """
    if trainer.datamodule is not None:
        if trainer.state.fn != "fit":
            trainer.datamodule.setup("fit")  # A test has set up the test split only.
        loader = trainer.datamodule.train_dataloader() if split == "train" else trainer.datamodule.val_dataloader()
        return loader[0] if isinstance(loader, (list, tuple)) else loader
    loader = trainer.train_dataloader if split == "train" else trainer.val_dataloaders
    if not isinstance(loader, DataLoader):
        pl.utilities.rank_zero_warn(
            f"There are no {split} images here, and what needs them is left out; to have it, give the Trainer a "
            f"datamodule with a {split}_dataloader."
        )
        return None
    shuffle = split == "train" and not isinstance(loader.dataset, IterableDataset)
    return DataLoader(loader.dataset, loader.batch_size, shuffle=shuffle, collate_fn=loader.collate_fn)


def check_monitors(trainer: Any, names: tuple[str, ...], every_n_epochs: int) -> None:
    """Refuse callbacks that would read a figure in epochs in which it is not measured, and take the old value for new.

    Lightning keeps what was logged from epoch to epoch: such epochs would count for patience, and be kept as the best
    (Lightning's issue 20185).

    Args:
        trainer: in `setup`, before it fits.
        names: how the figures' names begin.
        every_n_epochs: in which epochs they are measured, where there is a validation at all.
    """
    validated = trainer.check_val_every_n_epoch  # None: after so many batches, whatever the epoch
    measured = math.lcm(every_n_epochs, validated or 1)
    for callback in trainer.callbacks:
        saves = isinstance(callback, pl.callbacks.ModelCheckpoint)
        if not saves and not isinstance(callback, pl.callbacks.EarlyStopping):
            continue
        if callback.monitor is None or not callback.monitor.startswith(names):
            continue
        after_training, period = reads_after_training(callback), callback.every_n_epochs if saves else 1
        if not period:  # After so many batches, or minutes: before the validation that would measure it.
            is_right = False
        elif validated is None:
            is_right = every_n_epochs == 1 and not after_training
        else:
            is_right = (period if after_training else math.lcm(period, validated)) % measured == 0
        if not is_right:
            kind = type(callback).__name__
            own = f"{kind} every_n_epochs={measured}" if saves else f"{kind} no check_on_train_epoch_end"
            raise LightningGenError(
                f"{kind} reads {callback.monitor} also where it has not been measured, and would take an old value for "
                f"a new one; give the Trainer check_val_every_n_epoch={measured}, and {own}."
            )


class EvaluationCallback(Callback):
    """Base of callbacks that sample a model at the end of validation and of test.

    In `fit` they run in the first epoch, in every n-th (n-th, 2n-th, ...), and in the last one that `max_epochs`
    or `max_steps` announce; never in the sanity check. They draw from their own generators and put back the global
    ones, so training is bit-equal with and without them.

    Args:
        every_n_epochs: epochs from one run to the next.
        num_samples: how many samples are drawn.
        seed: of the callback's random numbers, the same in each run.
        labels: sampled under in turn, `all` for each class of the data; the conditions of the held-out images if None.

    Raises:
        LightningGenError: in `setup`, if the data have no such class.

    Attributes:
        context_keys: what is kept of the held-out batches beside the conditions, for conditional models.
        model: what is sampled: the Trainer's module, in a form of ours if it is of another project and has `sample(n)`.
        figures: the figures of this `fit`, `validate` or `test`, oldest first.
        pictures: the pictures written.
    """

    context_keys: tuple[str, ...] = ()

    def __init__(self, every_n_epochs: Size, num_samples: Size, seed: int, labels: Labels | None = None) -> None:
        check_arguments(EvaluationCallback.__init__, locals())
        self.every_n_epochs = every_n_epochs
        self.num_samples = num_samples
        self.seed = seed
        self.given_labels = labels
        self.labels: list[int] | None = None  # From `setup` on.
        self.figures: list[Figure] = []
        self.pictures: list[Path] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start anew; the folder is asked for here, on every rank."""
        if not callable(getattr(pl_module, "sample", None)):
            raise LightningGenError(
                f"{type(self).__name__} looks at a model's samples, and {type(pl_module).__name__} cannot be sampled; "
                "give it sample(n), or remove the callback."
            )
        self.model = pl_module if isinstance(pl_module, GenerativeModule) else Foreign(pl_module)
        self.folder = log_folder(trainer)
        self.labels = self._known_labels(trainer, self.model)
        self.figures.clear()
        self.pictures.clear()
        self._conditions: dict[int, dict[str, Any]] = {}  # of each held-out loader that is looked at

    def _known_labels(self, trainer: Any, module: GenerativeModule) -> list[int] | None:
        """The labels that were given, which the data must have."""
        given = self.given_labels
        number = getattr(trainer.datamodule, "num_classes", None) or module.hparams.get("num_classes")
        if given is None or (number is None and given != "all"):
            return given
        if given == "all":
            own = getattr(module, "classes", None)  # Of several models each may have a few of the data's.
            given = own if isinstance(own, list) else list(range(number or 0))
        if not given or not 0 <= min(given) <= max(given) < (number or 0):
            kind = type(self).__name__
            raise LightningGenError(
                f"{kind} got labels={self.given_labels}, and there are {number or 0} classes of images; give {kind} "
                f"labels from 0 to {(number or 1) - 1}, or 'all', or none for the conditions of the held-out images."
            )
        return given

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not sum(trainer.num_val_batches):
            pl.utilities.rank_zero_warn(
                f"{type(self).__name__} runs at the end of validation, and this run has none: give it a val_dataloader."
            )

    def is_due(self, trainer: Trainer) -> bool:
        """Whether this evaluation is one to run in."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return not trainer.sanity_checking
        if not self.model.can_sample:  # A model that trains in phases.
            return False
        is_last = trainer.current_epoch + 1 == trainer.max_epochs or 0 < trainer.max_steps <= trainer.global_step
        # Counted as the Trainer counts `check_val_every_n_epoch`: epochs n - 1, 2n - 1, ... from 0, and the first one.
        return is_last or trainer.current_epoch == 0 or (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def observe(
        self, trainer: Trainer, pl_module: GenerativeModule, batch: Batch, batch_idx: int, dataloader_idx: int
    ) -> None:
        """See a held-out batch: conditions of the first loader are kept until there are `num_samples` of them."""
        if dataloader_idx:
            return
        conditions = self._conditions.setdefault(0, {})
        for key, rows in self.conditions_of(pl_module, batch).items():
            kept = conditions.get(key, rows[:0])
            if len(kept) < self.num_samples:
                conditions[key] = torch.cat([kept, rows]) if isinstance(rows, Tensor) else kept + rows

    def conditions_of(self, module: GenerativeModule, batch: Batch) -> dict[str, Any]:
        """What a batch says of what is to be sampled: tensors on the CPU, or lists, each with a row for each sample."""
        keys = () if self.labels is not None else module.condition_keys
        context = [key for key in self.context_keys if keys and key in batch and key not in keys]
        found: dict[str, Any] = {}
        for key in (*keys, *context):
            if key not in batch:
                raise LightningGenError(
                    f"{type(module).__name__} is sampled under {key!r}, and the held-out batches hold only "
                    f"{sorted(batch)}; give it data with {key!r}."
                )
            found[key] = batch[key].cpu() if isinstance(batch[key], Tensor) else list(batch[key])
        return found

    @abstractmethod
    def evaluate(self, trainer: Trainer, pl_module: GenerativeModule, stage: Stage) -> None:
        """Do what the callback is for; called on every rank."""

    def sample(
        self,
        trainer: Trainer,
        module: GenerativeModule,
        num_samples: int,
        start: int,
        generator: torch.Generator,
        dataloader_idx: int = 0,
    ) -> tuple[Tensor, Condition | None]:
        """Draw samples under the labels, or the conditions of a loader's held-out images, from `start` on, cycled.

        The model runs in the trainer's precision, as in training; what it gives is scored and drawn in float32.

        Returns:
            Images in [0, 1], `(num_samples, *image_shape)`, and their conditions with what else was kept.
        """
        kept: dict[str, Any] = {}
        labels = None if self.labels is None else {"label": torch.tensor(self.labels)}
        for key, rows in (labels or self._conditions.get(dataloader_idx, {})).items():
            picked = [i % len(rows) for i in range(start, start + num_samples)]
            kept[key] = rows[picked] if isinstance(rows, Tensor) else [rows[i] for i in picked]
        condition = {key: rows for key, rows in kept.items() if self.labels is not None or key in module.condition_keys}
        with trainer.precision_plugin.forward_context():
            images = module.sample(num_samples, condition or None, generator=generator)
        return images.float(), kept or None

    def _observe(self, trainer: Trainer, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        if self.is_due(trainer):
            self.observe(trainer, self.model, as_batch(batch), batch_idx, dataloader_idx)

    def _evaluate(self, trainer: Trainer, stage: Stage) -> None:
        if self.is_due(trainer):
            with own_randomness(self.seed, self.model.device):
                self.evaluate(trainer, self.model, stage)

    # Lightning's hooks; the two ends of an epoch come before checkpoints are chosen and the log is written -----------

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._observe(trainer, batch, batch_idx, dataloader_idx)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._observe(trainer, batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._evaluate(trainer, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._evaluate(trainer, "test")
