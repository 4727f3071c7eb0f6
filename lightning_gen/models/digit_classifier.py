"""The classifier of digits whose features and confidence judge the generative models.

Supervised training on cross-entropy, with small random affine maps, blur and binarisation of the images. Its
probabilities are used, so there is no label smoothing, and images that are no digits are trained to get all ten labels
alike: outlier exposure (Hendrycks et al. 2019, https://arxiv.org/abs/1812.04606). A classifier that has seen digits
alone finds one in a black image with probability 0.999. See configs/digit_classifier/README.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gen._lightning import pl
from lightning_gen.arguments import ImageShape, NonNegative
from lightning_gen.errors import DataError
from lightning_gen.models.base import Batch, ImageModule, as_batch, check_labels
from lightning_gen.nn.digits import DigitNetwork


class DigitClassifier(ImageModule):
    """A small convolutional classifier of 28 x 28 grey digits.

    Args:
        image_shape: `(1, 28, 28)`, the one shape that the network is made for.
        distortion: the random linear map of a training image is the identity plus U(-distortion, distortion) on each
            entry: rotation, scale and shear at once. 0 for none.
        shift: a training image moves by U(-shift, shift) pixels along each axis. 0 for none.
        lr: the largest step size of the one-cycle schedule.
        weight_decay: of AdamW.

    Raises:
        DataError: if `image_shape` is another, or labels are missing or not in 0..9.
    """

    smallest_batch = 2

    def __init__(
        self,
        image_shape: ImageShape = (1, 28, 28),
        distortion: NonNegative = 0.15,
        shift: NonNegative = 2.0,
        lr: NonNegative = 0.004,
        weight_decay: NonNegative = 0.01,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.image_shape = tuple(map(int, image_shape))
        if self.image_shape != (1, 28, 28):
            raise DataError(f"image_shape is {self.image_shape}; the digit classifier takes (1, 28, 28) alone.")
        self.distortion = distortion
        self.shift = shift
        self.network = DigitNetwork()

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the ten digits, `(N, 1, 28, 28) in [0, 1] -> (N, 10)`."""
        return self.network(images)

    def distort(self, images: Tensor) -> Tensor:
        """Move, turn, stretch and shear each image a little, by bilinear interpolation on a black ground."""
        settings: Any = {"device": images.device, "dtype": images.dtype}
        noise = 2 * torch.rand(len(images), 2, 3, **settings) - 1  # (N, 2, 3), uniform in [-1, 1]
        shift = 2 * self.shift / images.shape[-1]  # In affine_grid's units an image is 2 wide.
        limits = noise.new_tensor([self.distortion, self.distortion, shift])
        maps = torch.eye(2, 3, **settings) + noise * limits
        grid = F.affine_grid(maps, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, align_corners=False).clamp(0, 1)

    def redraw(self, images: Tensor) -> Tensor:
        """Blur a third of the images, binarise a third: models draw grey digits, smooth means, and black and white."""
        blurred, binary = F.avg_pool2d(images, 3, stride=1, padding=1), images.bernoulli()
        kind = torch.randint(3, (len(images), 1, 1, 1), device=images.device)
        return torch.where(kind == 0, images, torch.where(kind == 1, blurred, binary))

    def non_digits(self, images: Tensor) -> Tensor:
        """Images that no digit should be seen in: the mean of every ten, and as many of noise of a random grain."""
        tens = len(images) // 10
        means = images[: 10 * tens].view(tens, 10, *images.shape[1:]).mean(1)  # (N / 10, 1, 28, 28)
        grain = int(torch.randint(1, 29, ()))
        settings: Any = {"device": images.device, "dtype": images.dtype}
        noise = torch.rand(tens, 1, grain, grain, **settings)
        noise = noise ** (4 * torch.rand(tens, 1, 1, 1, **settings))  # From mostly white to mostly black.
        return torch.cat([means, F.interpolate(noise, images.shape[-2:], mode="bilinear")])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Cross-entropy in nats, with the label of an augmented digit and with all ten labels alike for a non-digit."""
        batch = self.as_batch(batch)
        digits, others = self.redraw(self.distort(batch["image"])), self.non_digits(batch["image"])
        targets = torch.cat([F.one_hot(batch["label"], 10), digits.new_full((len(others), 10), 0.1)])
        loss = F.cross_entropy(self(torch.cat([digits, others])), targets)
        self.log("train/loss", loss)
        return loss

    def figure_protocols(self, stage: str) -> dict[str, str]:
        return {
            "loss": "cross-entropy in nats",
            "accuracy": "share of right classes",
            "confident": "share with a class probability over 0.9",
        }

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log `val/loss`, `val/accuracy` and `val/confident`."""
        self._score(self.as_batch(batch), "val")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log `test/loss`, `test/accuracy` and `test/confident`."""
        self._score(self.as_batch(batch), "test")

    def _score(self, batch: Batch, stage: str) -> None:
        """Log the means over all images; `confident` is the share with a probability over 0.9."""
        logits, labels = self(batch["image"]), batch["label"]
        scores = {
            f"{stage}/loss": F.cross_entropy(logits, labels),
            f"{stage}/accuracy": (logits.argmax(1) == labels).float().mean(),
            f"{stage}/confident": (logits.softmax(1).amax(1) > 0.9).float().mean(),
        }
        self.log_dict(scores, batch_size=len(labels), sync_dist=True)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """The most probable digit of each image, `(N,)`."""
        return self(self.converted(as_batch(batch))["image"]).argmax(1)

    def configure_optimizers(self) -> pl.utilities.types.OptimizerLRScheduler:
        lr, weight_decay = self.hparams["lr"], self.hparams["weight_decay"]
        optimizer = torch.optim.AdamW(self.parameters(), lr=lr, weight_decay=weight_decay)
        if (steps := self.training_steps()) is None:
            return optimizer
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def check_batch(self, batch: Batch) -> None:
        """Also refuse missing labels, and labels that are no digit."""
        super().check_batch(batch)
        if "label" not in batch:
            raise DataError(f"The batch holds {sorted(batch)}; the digit classifier needs 'label' too.")
        check_labels(batch["label"], 10, type(self).__name__)
