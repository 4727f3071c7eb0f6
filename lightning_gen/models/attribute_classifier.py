"""A classifier of several attributes at once, to judge images that were asked for by captions.

Supervised training on the sum of the attributes' cross-entropies. See configs/attribute_classifier/README.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gen._lightning import pl
from lightning_gen.arguments import ImageShape, NonNegative, Size
from lightning_gen.errors import DataError
from lightning_gen.models.base import Batch, ImageModule, as_batch
from lightning_gen.nn.attributes import AttributeNetwork

DIGIT_ATTRIBUTES = {"digit": 10, "thickness": 3, "slant": 2, "colour": 6, "position": 3}
"""How many values each attribute of captioned digits has."""


class AttributeClassifier(ImageModule):
    """Reads the attributes of an image; the defaults are those of captioned digits.

    Args:
        image_shape: `(C, H, W)`.
        attributes: how many values each attribute has, by its name, in the order of the batch's `attributes`.
        base_channels: of the first layer.
        num_features: of the last hidden layer.
        lr: the largest step size of the one-cycle schedule.
        weight_decay: of AdamW.

    Raises:
        DataError: if a batch has no such attributes.
    """

    def __init__(
        self,
        image_shape: ImageShape = (3, 32, 32),
        attributes: dict[str, Size] = DIGIT_ATTRIBUTES,
        base_channels: Size = 16,
        num_features: Size = 64,
        lr: NonNegative = 0.004,
        weight_decay: NonNegative = 0.01,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.image_shape = tuple(map(int, image_shape))
        self.attributes = attributes
        self.network = AttributeNetwork(self.image_shape, attributes, base_channels, num_features)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of all values of all attributes, one attribute after the other."""
        return self.network(images)

    def losses(self, logits: Tensor, values: Tensor) -> Tensor:
        """The cross-entropy of each attribute in nats, a mean over images, `(A,)`."""
        parts = zip(logits.split(self.network.sizes, 1), values.unbind(1), strict=True)
        return torch.stack([F.cross_entropy(part, value) for part, value in parts])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The sum of the attributes' cross-entropies."""
        batch = self.as_batch(batch)
        loss = self.losses(self(batch["image"]), batch["attributes"]).sum()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def figure_protocols(self, stage: str) -> dict[str, str]:
        return {
            "loss": "sum of cross-entropies in nats",
            **{name: "share of right values" for name in self.attributes},
            "all": "share of images with every attribute right",
        }

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log `val/loss`, the accuracy of each attribute as `val/<name>`, and `val/all`."""
        self._score(self.as_batch(batch), "val")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log `test/loss`, the accuracy of each attribute as `test/<name>`, and `test/all`."""
        self._score(self.as_batch(batch), "test")

    def _score(self, batch: Batch, stage: str) -> None:
        logits, values = self(batch["image"]), batch["attributes"]
        right = self.network.read(logits) == values
        scores = {
            "loss": self.losses(logits, values).sum(),
            **dict(zip(self.attributes, right.float().mean(0), strict=True)),
            "all": right.all(1).float().mean(),
        }
        self.log_dict({f"{stage}/{k}": v for k, v in scores.items()}, batch_size=len(values), sync_dist=True)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """The value of each attribute, `(N, A)`."""
        return self.network.read(self(self.converted(as_batch(batch))["image"]))

    def configure_optimizers(self) -> pl.utilities.types.OptimizerLRScheduler:
        lr, weight_decay = self.hparams["lr"], self.hparams["weight_decay"]
        optimizer = torch.optim.AdamW(self.parameters(), lr=lr, weight_decay=weight_decay)
        if (steps := self.training_steps()) is None:
            return optimizer
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def check_batch(self, batch: Batch) -> None:
        """Also refuse other attributes, and values that there are not."""
        super().check_batch(batch)
        values = batch.get("attributes")
        shape = (len(self.attributes),)
        if not isinstance(values, Tensor) or values.shape[1:] != shape or values.is_floating_point():
            found = (
                f"{values.dtype} of {tuple(values.shape)}" if isinstance(values, Tensor) else f"only {sorted(batch)}"
            )
            raise DataError(
                f"AttributeClassifier needs attributes, integers of shape (N, {len(self.attributes)}); the batch has "
                f"{found}."
            )
        for name, size, low, high in zip(
            self.attributes, self.network.sizes, values.amin(0).tolist(), values.amax(0).tolist(), strict=True
        ):
            if low < 0 or high >= size:
                raise DataError(f"The attribute {name!r} has values in [{low}, {high}]; expected 0 to {size - 1}.")
