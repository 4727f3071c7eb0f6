"""Classification by the read attention of DRAW alone: a few glimpses at a large image, then a label.

Gregor et al., "DRAW: A Recurrent Neural Network For Image Generation" (2015), https://arxiv.org/abs/1502.04623, section
4.1. One LSTM; each glimpse is a window on the image that the state before it places, and a softmax on the last state
gives the label. Trained on its cross-entropy. See configs/draw/README.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gen.arguments import Decay, ImageShape, NonNegative, Size
from lightning_gen.errors import DataError
from lightning_gen.models.base import Batch, ImageModule, as_batch, check_labels
from lightning_gen.models.draw import Attention


class DRAWClassifier(ImageModule):
    """A recurrent classifier that sees an image through a window it moves itself.

    The defaults are the paper's for cluttered digits of 100 x 100 pixels.

    Args:
        image_shape: `(C, H, W)`.
        num_classes: how many labels there are.
        num_glimpses: T.
        read_size: filters on each side of the window.
        hidden_size: units of the LSTM.
        lr: step size of Adam.
        betas: of Adam.

    Raises:
        DataError: if the window has one filter or more than the image has pixels, or a batch has no label or one that
            is out of range.
    """

    def __init__(
        self,
        image_shape: ImageShape = (1, 100, 100),
        num_classes: Size = 10,
        num_glimpses: Size = 8,
        read_size: Size = 12,
        hidden_size: Size = 256,
        lr: NonNegative = 1e-3,
        betas: tuple[Decay, Decay] = (0.9, 0.999),
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.image_shape = tuple(map(int, image_shape))
        self.num_classes = num_classes
        self.num_glimpses = num_glimpses
        self.reader = Attention(hidden_size, self.image_shape, read_size)
        self.encoder = nn.LSTMCell(self.image_shape[0] * read_size**2, hidden_size)
        self.output = nn.Linear(hidden_size, num_classes)
        self.hidden = nn.Parameter(torch.zeros(hidden_size))  # h_0, which places the first window

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the labels, `(N, C, H, W) -> (N, num_classes)`."""
        return self.output(self.look(images)[-1])

    def look(self, images: Tensor) -> Tensor:
        """The T + 1 hidden states, the first before any glimpse: `(T + 1, N, hidden_size)`."""
        hidden = self.hidden.expand(len(images), -1)
        states, cell = [hidden], torch.zeros_like(hidden)
        for _ in range(self.num_glimpses):
            glimpse = self.reader.read(images, self.reader(hidden))
            hidden, cell = self.encoder(glimpse.to(hidden.dtype), (hidden, cell))
            states.append(hidden)
        return torch.stack(states)

    @torch.no_grad()
    def boxes(self, images: Tensor) -> Tensor:
        """Where each glimpse looks, `(T, N, 5)` as in `Attention.boxes`."""
        return self.reader.boxes(self.reader(self.look(images)[:-1]))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Cross-entropy after the last glimpse, in nats."""
        batch = self.as_batch(batch)
        loss = F.cross_entropy(self(batch["image"]), batch["label"])
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def figure_protocols(self, stage: str) -> dict[str, str]:
        return {"loss": "cross-entropy in nats", "accuracy": "share of right classes"}

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log `val/loss` and `val/accuracy`."""
        self._score(self.as_batch(batch), "val")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log `test/loss` and `test/accuracy`."""
        self._score(self.as_batch(batch), "test")

    def _score(self, batch: Batch, stage: str) -> None:
        logits, labels = self(batch["image"]), batch["label"]
        scores = {
            f"{stage}/loss": F.cross_entropy(logits, labels),
            f"{stage}/accuracy": (logits.argmax(1) == labels).float().mean(),
        }
        self.log_dict(scores, batch_size=len(labels), sync_dist=True)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """The most probable label of each image, `(N,)`."""
        return self(self.converted(as_batch(batch))["image"]).argmax(1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"], betas=tuple(self.hparams["betas"]))

    def check_batch(self, batch: Batch) -> None:
        """Also refuse missing labels, and labels out of range."""
        super().check_batch(batch)
        if "label" not in batch:
            raise DataError(f"The batch holds {sorted(batch)}; DRAWClassifier needs 'label' too.")
        check_labels(batch["label"], self.num_classes, type(self).__name__)
