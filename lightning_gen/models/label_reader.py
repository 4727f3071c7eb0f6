"""A network that reads maps of labels from photographs, to judge photographs that were made of such maps.

The FCN score of Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks" (2017), section 4.1,
in small: if photographs look real, a network trained on real ones reads in them the labels that they were made of.
Theirs is FCN-8s (Long et al. 2015), pretrained on ImageNet; this one is trained from its first weights. See
configs/label_reader/README.md.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_gen.arguments import Count, ImageShape, NonNegative, Size
from lightning_gen.errors import DataError
from lightning_gen.functional.segmentation import LabelScores, label_confusion, label_scores
from lightning_gen.models.base import Batch, ImageModule, as_batch, check_pixels
from lightning_gen.nn.label_reader import LabelNetwork

FACADES = (  # Mean colours of the published files, which are JPEGs.
    (0, 0, 222),
    (1, 48, 253),
    (3, 126, 254),
    (3, 206, 255),
    (34, 254, 226),
    (113, 253, 144),
    (192, 254, 65),
    (253, 240, 5),
    (254, 159, 3),
    (253, 80, 2),
    (250, 2, 3),
    (173, 0, 2),
)


class LabelReader(ImageModule):
    """Reads the label of every pixel of `image`, given by the colours of `source`.

    Args:
        image_shape: `(C, H, W)` of the photographs.
        palette: colour of each label, red, green and blue in 0..255; those of the facades by default.
        base_channels: of every layer.
        lr: Adam's step size.

    Raises:
        DataError: if a batch has no map of labels in colour.
    """

    def __init__(
        self,
        image_shape: ImageShape = (3, 64, 64),
        palette: tuple[tuple[Count, Count, Count], ...] = FACADES,
        base_channels: Size = 32,
        lr: NonNegative = 1e-3,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.image_shape = tuple(map(int, image_shape))
        self.network = LabelNetwork(self.image_shape[0], palette, base_channels)
        self._confusions: dict[int, list[Tensor]] = defaultdict(list)  # of each held-out loader

    def forward(self, images: Tensor) -> Tensor:
        """Logits, `(N, C, H, W) -> (N, K, H, W)`."""
        return self.network(images)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Cross-entropy in nats, a mean over pixels."""
        batch = self.as_batch(batch)
        loss = F.cross_entropy(self(batch["image"]), self.network.labels_of(batch["source"]))
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def figure_protocols(self, stage: str) -> dict[str, str]:
        return {
            "pixel_accuracy": "share of pixels read right",
            "class_accuracy": "the same for each label, averaged",
            "iou": "intersection over union, averaged over labels",
        }

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count what is read in the photographs."""
        self._read(self.as_batch(batch), dataloader_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count what is read in the photographs."""
        self._read(self.as_batch(batch), dataloader_idx)

    def _read(self, batch: Batch, dataloader_idx: int) -> None:
        labels = self.network.labels_of(batch["source"])
        confusion = label_confusion(self(batch["image"]).argmax(1), labels, len(self.network.palette))
        self._confusions[dataloader_idx].append(confusion)

    def on_validation_epoch_end(self) -> None:
        """Log `val/pixel_accuracy`, `val/class_accuracy` and `val/iou`."""
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Log `test/pixel_accuracy`, `test/class_accuracy` and `test/iou`."""
        self._log_scores("test")

    def _log_scores(self, stage: str) -> None:
        for dataloader_idx, confusions in self._confusions.items():
            scores = label_scores(self.reduce(torch.stack(confusions).sum(0), "sum"))
            figures = {f"{stage}/{name}": score for name, score in zip(LabelScores._fields, scores, strict=True)}
            self.log_of_loader(figures, dataloader_idx)
        self._confusions.clear()

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """The label of every pixel, `(N, H, W)`."""
        return self(self.converted(as_batch(batch))["image"]).argmax(1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])

    def check_batch(self, batch: Batch) -> None:
        """Also refuse a batch without maps of labels of the photographs' size."""
        super().check_batch(batch)
        expected = (3, *self.image_shape[1:])
        found = tuple(batch["source"].shape[1:]) if "source" in batch else f"only {sorted(batch)}"
        if found != expected:
            raise DataError(f"LabelReader reads the labels in source, of the shape {expected}; the batch has {found}.")
        check_pixels(batch["source"], "source")
