"""Scores of what a model generates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lightning_gen._lightning import LightningModule, Trainer, pl
from lightning_gen.arguments import Size, check_arguments
from lightning_gen.callbacks.base import (
    EvaluationCallback,
    Figure,
    Labels,
    Stage,
    check_monitors,
    fresh_loader,
    trained_epoch,
)
from lightning_gen.callbacks.progress import progress
from lightning_gen.errors import DataError, LightningGenError
from lightning_gen.metrics.base import SampleMetric, Samples
from lightning_gen.models.base import (
    Batch,
    Condition,
    GenerativeModule,
    as_batch,
    held_out_batches,
    loader_suffix,
)
from lightning_gen.nn.features import FeatureExtractor, check_range


class Score(NamedTuple):
    """What a metric says of one set of images."""

    value: float
    standard_error: float | None
    extractor: str  # " on digits", or nothing
    protocol: str
    of_training: bool  # compared with training images
    higher_is_better: bool | None


class HeldOut:
    """What is known of the images of one held-out loader.

    Args:
        dataloader_idx: which one.
        metrics: those that compare with these images.
        seed: of the draw of conditions.
    """

    def __init__(self, dataloader_idx: int, metrics: list[SampleMetric], seed: int) -> None:
        self.dataloader_idx = dataloader_idx
        self.metrics = metrics
        self.num_images = 0  # seen, by this rank until all have been
        self.conditions: dict[str, list[Any]] = {}
        self.real: dict[str, Score] = {}
        self.num_real = 0
        self._draw = torch.Generator().manual_seed(seed)

    def keep(self, conditions: dict[str, Any], number: int, limit: int) -> None:
        """Keep the conditions of `limit` images drawn from all that pass, in their order if there are no more.

        Not of the first ones, which may be of a few classes (Vitter 1985, algorithm R).
        """
        for row in range(number if conditions else 0):
            seen = self.num_images + row
            place = seen if seen < limit else int(torch.randint(seen + 1, (1,), generator=self._draw))
            for key, rows in conditions.items() if place < limit else ():
                value = rows[row].clone() if isinstance(rows, Tensor) else rows[row]
                self.conditions.setdefault(key, [])[place : place + 1] = [value]

    def kept(self) -> dict[str, Any]:
        """The conditions, as a batch has them."""
        return {k: torch.stack(v) if isinstance(v[0], Tensor) else v for k, v in self.conditions.items()}


class SampleEvaluation(EvaluationCallback):
    """Score samples by all metrics at once: one sampling pass and one feature pass.

    The samples are drawn under the conditions of the held-out images, cycled, or of as many as there are samples, drawn
    from them; and compared with the held-out images of the stage, whose statistics are computed once. What a metric has
    to choose (Parzen's sigma) is chosen on the validation images, which in `fit` and `validate` are the held-out images
    themselves. Once in each stage as many training images are scored in the place of the samples: that is what a
    perfect model would reach. Metrics that look for copies are given all training images, once in each stage.

    Where there are several held-out loaders, the samples are compared with the images of each, and the figures have
    Lightning's names: `val/fid_digits/dataloader_idx_1`.

    A `ModelCheckpoint` or `EarlyStopping` that monitors one of the figures must not look at it in epochs between two
    evaluations, where the last value still stands: that is refused. `check_val_every_n_epoch` of the Trainer, in the
    place of `every_n_epochs`, makes them look when there is a new one.

    On several ranks each draws its share. Every batch of samples has a generator of its own, so the same samples are
    drawn on any number of ranks (by a model without conditions that draws from that generator alone).

    An extractor that is made for images of one kind (`FeatureExtractor.least_sure`) and is unsure of nearly all
    held-out images judges nothing: its figures are left out, with one warning.

    Args:
        metrics: what to compute.
        num_samples: how many samples.
        extractor: the network whose features the metrics compare, if any does.
        every_n_epochs: epochs from one evaluation to the next; the first and the last are always evaluated.
        batch_size: samples drawn at a time.
        seed: of the samples, the same in each evaluation.
        labels: sampled under in turn, so that each is as frequent, `all` for each class of the data; the conditions of
            the held-out images if None.
        reference: the images that samples are compared with, `held_out`, or all of `train`, as in most published
            distances; then held-out images stand in the place of samples beside them. Scores that ask how far the model
            goes beyond its training images (`needs_held_out`) are of held-out images in any case.

    Raises:
        LightningGenError: if a metric needs features and there is no extractor; or, in `fit`, if a callback monitors a
            figure in epochs without one.
    """

    def __init__(
        self,
        metrics: list[SampleMetric],
        num_samples: Size = 1000,
        extractor: FeatureExtractor | None = None,
        every_n_epochs: Size = 1,
        batch_size: Size = 250,
        seed: int = 0,
        labels: Labels | None = None,
        reference: Literal["held_out", "train"] = "held_out",
    ) -> None:
        check_arguments(SampleEvaluation.__init__, locals())
        super().__init__(every_n_epochs, num_samples, seed, labels)
        self.metrics = metrics
        self.reference = reference
        self.extractor = extractor
        self.batch_size = batch_size
        self.context_keys = tuple({key for metric in metrics for key in metric.batch_keys})
        for metric in metrics:
            if extractor is not None:
                metric.bind(extractor)
            elif metric.needs_features:
                raise LightningGenError(
                    f"{type(metric).__name__} compares features and SampleEvaluation got no extractor; give it "
                    "DigitFeatures for digits, InceptionV3 or EfficientNetLite0 for other images."
                )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the statistics of another stage."""
        super().setup(trainer, pl_module, stage)
        for metric in self.metrics:
            if metric.needs_density and self.model.no_density:
                raise LightningGenError(
                    f"{metric.name} is refused for {type(pl_module).__name__}: {self.model.no_density}. Remove the "
                    "metric."
                )
            metric.reset()
        self._held_out: dict[int, HeldOut] = {}
        self._reference_is_whole = False
        self._num_sure: Tensor | int = 0  # of the held-out images, by the extractor
        self._extractor_fits = True
        self._num_training = 0
        self._fitting = stage == "fit"
        if self._fitting:
            names = tuple(f"val/{metric.name}" for metric in self.metrics)
            check_monitors(trainer, names, self.every_n_epochs)

    # The real images --------------------------------------------------------------------------------------------

    def observe(
        self, trainer: Trainer, pl_module: GenerativeModule, batch: Batch, batch_idx: int, dataloader_idx: int
    ) -> None:
        """Take the batch as a part of the reference and of the conditions, until all have been seen once."""
        if self._reference_is_whole:
            return
        if not self._held_out:
            self._begin(trainer, pl_module)
        held_out = self._held_out[dataloader_idx]
        if batch_idx and not held_out.num_images:
            return  # Validation goes on in its middle after a resume: wait for a whole one.
        images = batch[pl_module.data_key]
        held_out.keep(self.conditions_of(pl_module, batch), len(images), self.num_samples)
        self._image_shape = tuple(images.shape[1:])
        samples = self._samples(images)
        if samples.logits is not None and samples.logits.shape[1]:
            self._num_sure = self._num_sure + (samples.logits.softmax(1).amax(1) > 0.9).sum()
        room = math.ceil(self.num_samples / trainer.world_size) - held_out.num_images
        for metric in held_out.metrics:
            if not self._is_of_training(metric):
                metric.update(samples, batch, role="reference")
            elif room > 0:  # In the place of samples, to be scored when the training images are known.
                features, logits = (None if field is None else field[:room] for field in samples[1:])
                first = Samples(samples.images[:room], features, logits)
                metric.update(first, {key: rows[:room] for key, rows in batch.items()}, role="generated")
        if not trainer.testing:
            self._tune(held_out.metrics, samples.images, batch)
        held_out.num_images += len(images)

    def _begin(self, trainer: Trainer, module: GenerativeModule) -> None:
        """The first batch of all: the other loaders have metrics of their own, so far without images."""
        self._num_sure = 0
        if self.extractor is not None:
            self.extractor.to(module.device)
        for metric in self.metrics:
            metric.to(module.device).reset()
        for index, number in enumerate(held_out_batches(trainer)):
            if number:
                self._held_out[index] = HeldOut(index, deepcopy(self.metrics) if index else self.metrics, self.seed)

    def _is_of_training(self, metric: SampleMetric) -> bool:
        """Whether samples are compared with training images by it."""
        return self.reference == "train" and not metric.needs_held_out

    def _finish_reference(self, trainer: Trainer, module: GenerativeModule) -> None:
        """All held-out images have been seen: count them, read the validation images, score training images."""
        for held_out in self._held_out.values():
            count = torch.tensor(float(held_out.num_images), device=module.device)
            held_out.num_images = int(trainer.strategy.reduce(count, reduce_op="sum"))
            self._conditions[held_out.dataloader_idx] = held_out.kept()
        self._reference_is_whole = True
        self._check_extractor(trainer, module)
        metrics = [metric for held_out in self._held_out.values() for metric in held_out.metrics]
        looks_at_images = not all(metric.needs_features for metric in metrics)
        if trainer.testing and looks_at_images and (loader := fresh_loader(trainer, "val")) is not None:
            for images, batch in self._read(trainer, module, loader):
                self._tune(metrics, images.float(), batch)
        if (loader := fresh_loader(trainer, "train")) is None:
            return
        needs_all = [metric for metric in metrics if metric.needs_training or self._is_of_training(metric)]
        if needs_all:
            for images, batch in self._read(trainer, module, loader):
                self._learn(needs_all, images, batch)
            self._num_training = self._num_read
        for held_out in self._held_out.values():  # So far held-out images are in the place of samples here.
            of_training = [metric for metric in held_out.metrics if self._is_of_training(metric)]
            held_out.real = self._compute(of_training, real=True)
        others = [[m for m in h.metrics if not self._is_of_training(m)] for h in self._held_out.values()]
        if any(others):
            scores = self._score(others, self._read(trainer, module, loader, self.num_samples), real=True)
            for held_out, found in zip(self._held_out.values(), scores, strict=True):
                held_out.real |= found
                held_out.num_real = self._num_read

    def _check_extractor(self, trainer: Trainer, module: GenerativeModule) -> None:
        """Leave out what an extractor says of images for which it was not made."""
        if self.extractor is None or not any(metric.needs_features for metric in self.metrics):
            return
        sure = torch.as_tensor(self._num_sure, dtype=torch.float32, device=module.device)
        sure = trainer.strategy.reduce(sure, reduce_op="sum")
        number = sum(held_out.num_images for held_out in self._held_out.values())
        self._extractor_fits = int(sure) >= self.extractor.least_sure * number
        if self._extractor_fits:
            return
        for held_out in self._held_out.values():
            held_out.metrics = [metric for metric in held_out.metrics if not metric.needs_features]
        pl.utilities.rank_zero_warn(
            f"{type(self.extractor).__name__} is sure of what it sees in {int(sure)} of {number} held-out images: it "
            "was not made for such, and its figures are left out. Judge a checkpoint by lightning-gen evaluate "
            "--ckpt_path PATH --extractor EfficientNetLite0 (or InceptionV3; without --extractor by its pixels), or "
            "give SampleEvaluation such an extractor."
        )

    def _read(
        self, trainer: Trainer, module: GenerativeModule, loader: Iterable[Any], limit: int | None = None
    ) -> Iterator[tuple[Tensor, Batch]]:
        """Read this rank's share of a loader's first images: every rank sees all batches, and takes its own rows."""
        self._num_read = 0  # by all ranks
        with progress(trainer, "Real images", limit) as advance:
            for batch in loader:
                batch = as_batch(batch)
                number = len(batch[module.data_key])
                if limit is not None:
                    number = min(number, limit - self._num_read)
                self._num_read += number
                # Not batch by batch: a single large one would leave the other ranks with nothing.
                rows = slice(trainer.global_rank, number, trainer.world_size)
                if trainer.global_rank < number:
                    batch = {key: value[rows] for key, value in batch.items()}
                    batch = trainer.strategy.batch_to_device(batch, module.device)
                    yield batch[module.data_key], batch
                advance(number)
                if self._num_read == limit:
                    break

    def _tune(self, metrics: Iterable[SampleMetric], images: Tensor, batch: Batch) -> None:
        """Give images to the metrics that may choose something on them: those that look at images, not features."""
        for metric in metrics:
            if not metric.needs_features:
                metric.update(Samples(images), batch, role="tuning")

    def _learn(self, metrics: Iterable[SampleMetric], images: Tensor, batch: Batch) -> None:
        """Give training images to the metrics that ask for them, without features if these look at none."""
        needs_features = any(metric.needs_features for metric in metrics)
        samples = self._samples(images) if needs_features else Samples(images.float())
        for metric in metrics:
            metric.update(samples, batch, role="training" if metric.needs_training else "reference")

    def _samples(self, images: Tensor) -> Samples:
        """Images with what the extractor sees in them."""
        images = images.float()
        looks = self._extractor_fits and any(metric.needs_features for metric in self.metrics)
        if self.extractor is None or not looks:
            return Samples(images)
        with torch.no_grad():
            return Samples(images, *self.extractor(images))

    # The evaluation ---------------------------------------------------------------------------------------------

    def evaluate(self, trainer: Trainer, pl_module: GenerativeModule, stage: Stage) -> None:
        if not all(held_out.num_images for held_out in self._held_out.values()):
            self._held_out = {}  # Not seen from its first batch on.
        if not self._held_out:
            return
        if not self._reference_is_whole:
            self._finish_reference(trainer, pl_module)
        every = [held_out for held_out in self._held_out.values() if held_out.metrics]
        # Where the loaders' conditions do not matter, the same samples are compared with the images of all.
        is_shared = self.labels is not None or not pl_module.condition_keys
        for together in [every] * bool(every) if is_shared else [[held_out] for held_out in every]:
            samples = self._generate(trainer, pl_module, together[0].dataloader_idx)
            scores = self._score([held_out.metrics for held_out in together], samples)
            for held_out, found in zip(together, scores, strict=True):
                for name, score in found.items():
                    self._report(trainer, pl_module, stage, held_out, name, score)

    def _report(
        self, trainer: Trainer, module: GenerativeModule, stage: Stage, held_out: HeldOut, name: str, score: Score
    ) -> None:
        """Keep a figure, and log it."""
        real = held_out.real.get(name)
        compared = f"{self._num_training} training" if score.of_training else f"{held_out.num_images} {stage}"
        protocol = [f"{self.num_samples} samples{score.extractor}", f"{compared} images"]
        if score.protocol:
            protocol.append(score.protocol)
        if stage == "val" and "chosen on" in score.protocol:  # Flattering, and so to be said.
            protocol.append("the same that are scored")
        if real is not None and score.of_training:
            protocol.append(f"real: {min(held_out.num_images, self.num_samples)} {stage} images")
        elif real is not None and held_out.num_real < self.num_samples:
            protocol.append(f"real: only {held_out.num_real} training images")
        figure = Figure(
            name=f"{stage}/{name}{loader_suffix(trainer, held_out.dataloader_idx)}",
            value=score.value,
            standard_error=score.standard_error,
            real=None if real is None else real.value,
            protocol=", ".join(protocol),
            stage=stage,
            epoch=trained_epoch(trainer),
            higher_is_better=score.higher_is_better,
        )
        self.figures.append(figure)
        trainer.lightning_module.log(figure.name, figure.value, sync_dist=True, add_dataloader_idx=False)

    def _score(
        self,
        metrics: Sequence[list[SampleMetric]],
        batches: Iterable[tuple[Tensor, Condition | None]],
        real: bool = False,
    ) -> list[dict[str, Score]]:
        """Run each loader's metrics over images in the place of the generated ones, which may be real."""
        every = [metric for several in metrics for metric in several]
        for metric in every:
            metric.reset_generated()
        for images, batch in batches:
            if tuple(images.shape[1:]) != self._image_shape:
                raise DataError(
                    f"The samples have the shape {tuple(images.shape[1:])}, the held-out images {self._image_shape}; "
                    "give both the same size and channels."
                )
            check_range(images, "The pixels of the samples")
            samples = self._samples(images)
            for metric in every:
                metric.update(samples, None if batch is None else dict(batch), role="generated")
        return [self._compute(several, real) for several in metrics]

    def _compute(self, metrics: Iterable[SampleMetric], real: bool = False) -> dict[str, Score]:
        """The scores of what is in the place of the samples, by name; one that lacks images is left out.

        Where these are real, nothing is said of it: the score of the samples stands, and its place beside it is empty.
        """
        scores = {}
        for metric in metrics:
            try:
                value = metric.compute().item() or 0.0  # Not -0.
            except DataError as error:
                if not real:
                    pl.utilities.rank_zero_warn(f"{metric.name} is left out: {error}")
                continue
            extractor = f" on {metric.extractor_name}" if metric.needs_features else ""
            of_training = self._is_of_training(metric)
            scores[metric.name] = Score(
                value, metric.standard_error, extractor, metric.protocol, of_training, metric.higher_is_better
            )
        return scores

    def _generate(
        self, trainer: Trainer, module: GenerativeModule, dataloader_idx: int
    ) -> Iterator[tuple[Tensor, Condition | None]]:
        """Draw this rank's share of the samples: every world_size-th batch, each from its own generator."""
        rank, ranks = trainer.global_rank, trainer.world_size
        size = min(self.batch_size, math.ceil(self.num_samples / ranks))  # Every rank has some.
        starts = range(rank * size, self.num_samples, ranks * size)
        with progress(trainer, "Sampling", self.num_samples // ranks) as advance:
            for turn, start in enumerate(starts):
                number = min(size, self.num_samples - start)
                generator = torch.Generator(module.device).manual_seed(self.seed + start)
                yield self.sample(trainer, module, number, turn * size, generator, dataloader_idx)
                advance(number)

    # The figures of the epochs before a resume ------------------------------------------------------------------

    @property
    def state_key(self) -> str:
        """Several evaluations may stand side by side."""
        told_by = {"metrics": [metric.name for metric in self.metrics], "num_samples": self.num_samples}
        return f"{type(self).__qualname__}{told_by!r}"

    def state_dict(self) -> dict[str, Any]:
        return {"figures": [figure._asdict() for figure in self.figures]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._fitting:
            self.figures = [Figure(**figure) for figure in state_dict["figures"]]
