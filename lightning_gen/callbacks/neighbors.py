"""Pictures that show whether a model copies: samples beside training images, and samples that are alike."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_gen._lightning import Trainer
from lightning_gen.arguments import Size, check_arguments
from lightning_gen.callbacks.base import fresh_loader
from lightning_gen.callbacks.files import image_grid
from lightning_gen.callbacks.sample_grid import PictureCallback
from lightning_gen.errors import DataError
from lightning_gen.functional.neighbors import closest_pairs, nearest_neighbors
from lightning_gen.models.base import GenerativeModule, as_batch
from lightning_gen.nn.features import FeatureExtractor


class NeighborCallback(PictureCallback):
    """Base of pictures of images that are near each other.

    Args:
        num_samples: how many are drawn.
        extractor: images are near if their features are; their pixels if None.
        every_n_epochs: epochs from one picture to the next; the first and the last are always drawn.
        seed: of the noise.
    """

    def __init__(self, num_samples: Size, extractor: FeatureExtractor | None, every_n_epochs: Size, seed: int) -> None:
        check_arguments(NeighborCallback.__init__, locals())
        super().__init__(every_n_epochs, num_samples, seed)
        self.extractor = extractor

    def points(self, images: Tensor) -> Tensor:
        """What distances are measured between, `(N, F)`."""
        if self.extractor is None:
            return images.flatten(1)
        with torch.no_grad():
            return self.extractor.to(images.device)(images).features


class SampleNeighbors(NeighborCallback):
    """Draw the first samples in a row, and below each the training images that are nearest to it.

    Every picture reads all training images once, batch by batch.

    Args:
        num_samples: samples in the picture, side by side.
        num_neighbors: training images below each, the nearest first.
        extractor: images are near if their features are; their pixels if None.
        every_n_epochs: epochs from one picture to the next; the first and the last are always drawn.
        seed: of the noise.
    """

    kind = "neighbors"

    def __init__(
        self,
        num_samples: Size = 12,
        num_neighbors: Size = 3,
        extractor: FeatureExtractor | None = None,
        every_n_epochs: Size = 1,
        seed: int = 0,
    ) -> None:
        check_arguments(SampleNeighbors.__init__, locals())
        super().__init__(num_samples, extractor, every_n_epochs, seed)
        self.num_neighbors = num_neighbors

    def draw(self, trainer: Trainer, pl_module: GenerativeModule) -> Tensor:
        generator = torch.Generator(pl_module.device).manual_seed(self.seed)
        samples, _ = self.sample(trainer, pl_module, self.num_samples, 0, generator)
        points = self.points(samples)
        distances = points.new_zeros(self.num_samples, 0)
        nearest = samples.new_zeros(self.num_samples, 0, *samples.shape[1:])  # (N, k, C, H, W)
        for batch in fresh_loader(trainer, "train") or ():
            images = as_batch(batch)[pl_module.data_key].to(pl_module.device).float()
            near = nearest_neighbors(points, self.points(images), min(self.num_neighbors, len(images)))
            distances = torch.cat([distances, near.distances], 1)
            nearest = torch.cat([nearest, images[near.indices]], 1)
            distances, order = distances.topk(min(self.num_neighbors, distances.shape[1]), largest=False)
            nearest = nearest[torch.arange(self.num_samples, device=order.device)[:, None], order]
        rows = torch.cat([samples[None], nearest.transpose(0, 1)])
        return image_grid(rows.flatten(0, 1), self.num_samples)


class ClosestPairs(NeighborCallback):
    """Draw the pairs of samples that are the most alike, one above the other, the closest first.

    If they are one image, the model can draw hardly more than `num_samples`^2 different ones (Arora & Zhang 2017).

    Args:
        num_samples: samples that the pairs are found among.
        num_pairs: pairs in the picture, side by side.
        extractor: images are near if their features are; their pixels if None.
        every_n_epochs: epochs from one picture to the next; the first and the last are always drawn.
        batch_size: samples drawn at a time.
        seed: of the noise.
    """

    kind = "pairs"

    def __init__(
        self,
        num_samples: Size = 1000,
        num_pairs: Size = 12,
        extractor: FeatureExtractor | None = None,
        every_n_epochs: Size = 1,
        batch_size: Size = 250,
        seed: int = 0,
    ) -> None:
        check_arguments(ClosestPairs.__init__, locals())
        super().__init__(num_samples, extractor, every_n_epochs, seed)
        if num_pairs > num_samples * (num_samples - 1) // 2:
            raise DataError(f"{num_samples} samples make no {num_pairs} pairs; give more num_samples.")
        self.num_pairs = num_pairs
        self.batch_size = batch_size

    def draw(self, trainer: Trainer, pl_module: GenerativeModule) -> Tensor:
        generator = torch.Generator(pl_module.device).manual_seed(self.seed)
        starts = range(0, self.num_samples, self.batch_size)
        samples = torch.cat(
            [
                self.sample(trainer, pl_module, min(self.batch_size, self.num_samples - start), start, generator)[0]
                for start in starts
            ]
        )
        points = torch.cat([self.points(part) for part in samples.split(self.batch_size)])
        pairs = closest_pairs(points, self.num_pairs).indices
        return image_grid(samples[pairs.T].flatten(0, 1), self.num_pairs)
