"""Scores of what a model generates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_gen._lightning import LightningModule, Trainer, pl
from lightning_gen.arguments import Size, check_arguments
from lightning_gen.callbacks.base import EvaluationCallback, Figure, Stage, fresh_loader
from lightning_gen.callbacks.progress import progress
from lightning_gen.errors import DataError, LightningGenError
from lightning_gen.metrics.base import SampleMetric, Samples
from lightning_gen.models.base import Batch, Condition, GenerativeModule, as_batch
from lightning_gen.nn.features import FeatureExtractor


class Score(NamedTuple):
    """What a metric says of one set of images."""

    value: float
    standard_error: float | None
    extractor: str  # " on digits", or nothing
    protocol: str


class SampleEvaluation(EvaluationCallback):
    """Score samples by all metrics at once: one sampling pass and one feature pass.

    The samples are drawn under the conditions of the held-out images, cycled, and compared with the held-out images of
    the stage, whose statistics are computed once. What a metric has to choose (Parzen's sigma) is chosen on the
    validation images, which in `fit` and `validate` are the held-out images themselves. Once in each stage as many
    training images are scored in the place of the samples: that is what a perfect model would reach. Metrics that look
    for copies are given all training images, once in each stage.

    On several ranks each draws its share. Every batch of samples has a generator of its own, so the same samples are
    drawn on any number of ranks (by a model without conditions that draws from that generator alone).

    Args:
        metrics: what to compute.
        num_samples: how many samples.
        extractor: the network whose features the metrics compare, if any does.
        every_n_epochs: epochs from one evaluation to the next; the first and the last are always evaluated.
        batch_size: samples drawn at a time.
        seed: of the samples, the same in each evaluation.
        labels: sampled under in turn, so that each is as frequent; the conditions of the held-out images if None.

    Raises:
        LightningGenError: if a metric needs features and there is no extractor.
    """

    def __init__(
        self,
        metrics: list[SampleMetric],
        num_samples: Size = 1000,
        extractor: FeatureExtractor | None = None,
        every_n_epochs: Size = 1,
        batch_size: Size = 250,
        seed: int = 0,
        labels: list[int] | None = None,
    ) -> None:
        check_arguments(SampleEvaluation.__init__, locals())
        super().__init__(every_n_epochs, num_samples, seed, labels)
        self.metrics = metrics
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
            assert isinstance(pl_module, GenerativeModule)  # Or the base has raised.
            if metric.needs_density and pl_module.no_density:
                raise LightningGenError(
                    f"{metric.name} is refused for {type(pl_module).__name__}: {pl_module.no_density}. Remove the "
                    "metric."
                )
            metric.reset()
        self._num_reference = 0  # held-out images seen, of this rank until the reference is whole
        self._reference_is_whole = False
        self._real: dict[str, Score] = {}
        self._num_real = 0
        self._fitting = stage == "fit"

    # The real images --------------------------------------------------------------------------------------------

    def observe(self, trainer: Trainer, pl_module: GenerativeModule, batch: Batch, batch_idx: int) -> None:
        """Also take the batch as a part of the reference, until all of it has been seen once."""
        super().observe(trainer, pl_module, batch, batch_idx)
        if self._reference_is_whole:
            return
        if batch_idx == 0:
            for metric in self.metrics:
                metric.to(pl_module.device)
            if self.extractor is not None:
                self.extractor.to(pl_module.device)
        elif self._num_reference == 0:
            return  # Validation goes on in its middle after a resume: wait for a whole one.
        self._image_shape = tuple(batch[pl_module.data_key].shape[1:])
        samples = self._samples(batch[pl_module.data_key])
        for metric in self.metrics:
            metric.update(samples, batch, role="reference")
        if not trainer.testing:
            self._tune(samples.images, batch)
        self._num_reference += len(samples.images)

    def _finish_reference(self, trainer: Trainer, module: GenerativeModule) -> None:
        """All held-out images have been seen: count them, read the validation images, score training images."""
        count = torch.tensor(float(self._num_reference), device=module.device)
        self._num_reference = int(trainer.strategy.reduce(count, reduce_op="sum"))
        self._reference_is_whole = True
        looks_at_images = not all(metric.needs_features for metric in self.metrics)
        if trainer.testing and looks_at_images and (loader := fresh_loader(trainer, "val")) is not None:
            for images, batch in self._read(trainer, module, loader):
                self._tune(images.float(), batch)
        if (loader := fresh_loader(trainer, "train")) is not None:
            if any(metric.needs_training for metric in self.metrics):
                for images, batch in self._read(trainer, module, loader):
                    self._learn(images, batch)
            self._real = self._score(self._read(trainer, module, loader, self.num_samples))
            self._num_real = self._num_read

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

    def _tune(self, images: Tensor, batch: Batch) -> None:
        """Give images to the metrics that may choose something on them: those that look at images, not features."""
        for metric in self.metrics:
            if not metric.needs_features:
                metric.update(Samples(images), batch, role="tuning")

    def _learn(self, images: Tensor, batch: Batch) -> None:
        """Give training images to the metrics that ask for them, without features if these look at none."""
        metrics = [metric for metric in self.metrics if metric.needs_training]
        needs_features = any(metric.needs_features for metric in metrics)
        samples = self._samples(images) if needs_features else Samples(images.float())
        for metric in metrics:
            metric.update(samples, batch, role="training")

    def _samples(self, images: Tensor) -> Samples:
        """Images with what the extractor sees in them."""
        images = images.float()
        if self.extractor is None or not any(metric.needs_features for metric in self.metrics):
            return Samples(images)
        with torch.no_grad():
            return Samples(images, *self.extractor(images))

    # The evaluation ---------------------------------------------------------------------------------------------

    def evaluate(self, trainer: Trainer, pl_module: GenerativeModule, stage: Stage) -> None:
        if self._num_reference == 0:
            return
        if not self._reference_is_whole:
            self._finish_reference(trainer, pl_module)
        for name, score in self._score(self._generate(trainer, pl_module)).items():
            real = self._real.get(name)
            protocol = [f"{self.num_samples} samples{score.extractor}", f"{self._num_reference} {stage} images"]
            if score.protocol:
                protocol.append(score.protocol)
            if stage == "val" and "chosen on" in score.protocol:  # Flattering, and so to be said.
                protocol.append("the same that are scored")
            if real is not None and self._num_real < self.num_samples:
                protocol.append(f"real: only {self._num_real} training images")
            figure = Figure(
                name=f"{stage}/{name}",
                value=score.value,
                standard_error=score.standard_error,
                real=None if real is None else real.value,
                protocol=", ".join(protocol),
                stage=stage,
                epoch=trainer.current_epoch,
            )
            self.figures.append(figure)
            pl_module.log(figure.name, figure.value, sync_dist=True)

    def _score(self, batches: Iterable[tuple[Tensor, Condition | None]]) -> dict[str, Score]:
        """Run all metrics over images in the place of the generated ones; one that lacks images is left out."""
        for metric in self.metrics:
            metric.reset_generated()
        for images, batch in batches:
            if tuple(images.shape[1:]) != self._image_shape:
                raise DataError(
                    f"The samples have the shape {tuple(images.shape[1:])}, the held-out images {self._image_shape}; "
                    "give both the same size and channels."
                )
            samples = self._samples(images)
            for metric in self.metrics:
                metric.update(samples, None if batch is None else dict(batch), role="generated")
        scores = {}
        for metric in self.metrics:
            try:
                value = metric.compute().item()
            except DataError as error:
                pl.utilities.rank_zero_warn(f"{metric.name} is left out: {error}")
                continue
            extractor = f" on {metric.extractor_name}" if metric.needs_features else ""
            scores[metric.name] = Score(value, metric.standard_error, extractor, metric.protocol)
        return scores

    def _generate(self, trainer: Trainer, module: GenerativeModule) -> Iterator[tuple[Tensor, Condition | None]]:
        """Draw this rank's share of the samples: every world_size-th batch, each from its own generator."""
        rank, ranks = trainer.global_rank, trainer.world_size
        size = min(self.batch_size, math.ceil(self.num_samples / ranks))  # Every rank has some.
        starts = range(rank * size, self.num_samples, ranks * size)
        with progress(trainer, "Sampling", self.num_samples // ranks) as advance:
            for turn, start in enumerate(starts):
                number = min(size, self.num_samples - start)
                generator = torch.Generator(module.device).manual_seed(self.seed + start)
                yield self.sample(trainer, module, number, turn * size, generator)
                advance(number)

    # The figures of the epochs before a resume ------------------------------------------------------------------

    @property
    def state_key(self) -> str:
        """Several evaluations may stand side by side."""
        return self._generate_state_key(metrics=[metric.name for metric in self.metrics], num_samples=self.num_samples)

    def state_dict(self) -> dict[str, Any]:
        return {"figures": [figure._asdict() for figure in self.figures]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._fitting:
            self.figures = [Figure(**figure) for figure in state_dict["figures"]]
