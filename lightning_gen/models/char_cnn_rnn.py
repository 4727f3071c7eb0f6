r"""The hybrid character encoder of captions, and the structured joint embedding that trains it.

Reed, Akata, Schiele & Lee, "Learning Deep Representations of Fine-Grained Visual Descriptions" (2016),
https://arxiv.org/abs/1605.05395; the variants with recurrent units are those of Reed et al., "Generative Adversarial
Text to Image Synthesis" (2016), https://arxiv.org/abs/1605.05396.

Convolutions read 201 characters, a recurrent network reads what they see from left to right, and the mean of its states
becomes psi(t). With the features v of an image and F_ij = v_i . psi(t_j), a batch of B images of different classes has
the loss

    L = 1 / B^2 sum_i sum_{j != i} max(0, 1 + F_ij - F_ii) + max(0, 1 + F_ji - F_ii).

See configs/char_cnn_rnn/README.md for what differs from the papers and why.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import CatMetric

from lightning_gen._lightning import pl
from lightning_gen.arguments import ImageShape, NonNegative, Share, Size
from lightning_gen.errors import ConditionError, DataError
from lightning_gen.functional.precision import widen
from lightning_gen.models.base import Batch, ImageModule, as_batch
from lightning_gen.nn.frozen import make_frozen

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{} "
"""70 places; the hyphen has two, of which the last one counts, as in the authors' table."""

LENGTH = 201
NUM_CANDIDATES = 50  # Captions that one is to be found among.
PLACES = {character: place for place, character in enumerate(ALPHABET)}


def encode_characters(texts: Sequence[str], strict: bool = False) -> Tensor:
    """The place of each character in the alphabet; capitals are small letters, and what is not in it is left empty.

    Args:
        texts: N of them; of longer ones than 201 characters the rest is cut off, with a warning.
        strict: refuse unknown characters, instead of one warning that lists them.

    Returns:
        Integers `(N, 201)`, -1 where there is nothing.

    Raises:
        ConditionError: if a text is empty, or has unknown characters and `strict` is set.

    >>> encode_characters(["A-"])[0, :3].tolist()
    [0, 59, -1]
    """
    rows = torch.full((len(texts), LENGTH), -1)
    for row, text in zip(rows, texts, strict=True):
        if not text.strip():
            raise ConditionError("A caption is empty; expected some words.")
        places = [PLACES.get(character, -1) for character in text.lower()[:LENGTH]]
        row[: len(places)] = torch.tensor(places)
    if unknown := "".join(sorted({character for text in texts for character in text.lower()} - PLACES.keys())):
        if strict:
            raise ConditionError(f"Captions hold {unknown!r}, which the alphabet has not: {ALPHABET!r}.")
        warnings.warn(f"Captions hold {unknown!r}, which the alphabet has not; they are left out.", stacklevel=2)
    if longest := max((len(text) for text in texts if len(text) > LENGTH), default=0):
        warnings.warn(f"A caption has {longest} characters; the encoder reads the first {LENGTH}.", stacklevel=2)
    return rows


def one_hot(places: Tensor) -> Tensor:
    """`(N, 201)` -> `(N, 70, 201)`, zero where there is nothing."""
    return F.one_hot(places + 1, len(ALPHABET) + 1)[..., 1:].float().transpose(1, 2)


class MeanRNN(nn.Module):
    """h_1 = max(0, W x_1), h_t = max(0, W x_t + U h_{t-1}), and the mean of all h.

    Shape:
        `(N, C, T)` -> `(N, C)`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Linear(channels, channels)
        self.hidden = nn.Linear(channels, channels)

    def forward(self, maps: Tensor) -> Tensor:
        inputs = self.input(maps.transpose(1, 2)).unbind(1)
        states = [inputs[0].relu()]
        for value in inputs[1:]:
            states.append((value + self.hidden(states[-1])).relu())
        return torch.stack(states).mean(0)


class MeanGRU(nn.Module):
    """The authors' gated units, and the mean of all h. They are not those of `torch.nn.GRU`.

        h_1 = tanh(W x_1)
        z, r = sigmoid(W_z x + U_z h), sigmoid(W_r x + U_r h)
        h' = z tanh(W x + U (r h)) + (1 - z) h

    Shape:
        `(N, C, T)` -> `(N, C)`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Linear(channels, 3 * channels)  # W, W_z, W_r
        self.gates = nn.Linear(channels, 2 * channels)  # U_z, U_r
        self.hidden = nn.Linear(channels, channels)  # U

    def forward(self, maps: Tensor) -> Tensor:
        inputs = [parts.chunk(3, 1) for parts in self.input(maps.transpose(1, 2)).unbind(1)]
        states = [inputs[0][0].tanh()]
        for value, update, reset in inputs[1:]:
            state = states[-1]
            from_update, from_reset = self.gates(state).chunk(2, 1)
            z, r = (update + from_update).sigmoid(), (reset + from_reset).sigmoid()
            states.append(z * (value + self.hidden(r * state)).tanh() + (1 - z) * state)
        return torch.stack(states).mean(0)


VARIANTS = {  # channels of the third convolution, whether it is pooled, the recurrent units
    "rnn_256": (256, True, MeanRNN),
    "rnn_512": (512, True, MeanRNN),
    "gru_512": (512, False, MeanGRU),
}


def joint_embedding_loss(scores: Tensor) -> Tensor:
    """The symmetric surrogate of the structured joint embedding, section 3.2.

    Args:
        scores: F, of each image (row) with each caption (column), `(B, B)`; what belongs together is on the diagonal.

    Returns:
        A scalar.

    >>> joint_embedding_loss(torch.tensor([[2.0, 1.5], [0.0, 3.0]]))
    tensor(0.1250)
    """
    scores = widen(scores)
    own = scores.diagonal()
    others = (1 + scores - own[:, None]).relu() + (1 + scores - own).relu()
    return (others.sum() - others.diagonal().sum()) / len(scores) ** 2


class CharCNNRNN(ImageModule):
    """Captions to vectors near the features of the images that they describe. The defaults are those for birds.

    Called with a list of texts it gives `(M, text_dim)`; so a text-to-image model plugs it in.

    Args:
        image_shape: `(C, H, W)`.
        variant: `gru_512`, the one for birds and COCO; `rnn_512`, for flowers; `rnn_256`, that of the first paper.
        channels: of the three convolutions; those of the variant, after 384 and 512, if None.
        text_dim: length of an embedding, and of the images' features.
        extractor: class path of the `FeatureExtractor` that sees the images, ours or already imported; only training
            and scoring need it.
        extractor_args: of its constructor.
        attribute_names: of the columns of the batch's `attributes`, for figures of what goes wrong.
        strict: refuse captions with characters that the alphabet has not.
        lr: RMSprop's step size.
        decay: factor of the step size after each epoch.

    Raises:
        DataError: if the features have another length, or a batch has no captions, or neither attributes nor labels.
        ConditionError: see `encode_characters`.
    """

    def __init__(
        self,
        image_shape: ImageShape = (3, 224, 224),
        variant: Literal["gru_512", "rnn_512", "rnn_256"] = "gru_512",
        channels: tuple[Size, Size, Size] | None = None,
        text_dim: Size = 1024,
        extractor: str | None = None,
        extractor_args: dict[str, Any] | None = None,
        attribute_names: tuple[str, ...] = (),
        strict: bool = False,
        lr: NonNegative = 7e-4,
        decay: Share = 0.98,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.image_shape = tuple(map(int, image_shape))
        self.attribute_names = tuple(attribute_names)
        self.strict = strict
        width, pooled, units = VARIANTS[variant]
        first, second, third = channels or (384, 512, width)
        self.convolutions = nn.Sequential(  # 201 characters -> 198, 66, 63, 21, 18, and 8 if pooled
            nn.Conv1d(len(ALPHABET), first, 4),
            nn.Threshold(1e-6, 0),
            nn.MaxPool1d(3, 3),
            nn.Conv1d(first, second, 4),
            nn.Threshold(1e-6, 0),
            nn.MaxPool1d(3, 3),
            nn.Conv1d(second, third, 4),
            nn.Threshold(1e-6, 0),
            *([nn.MaxPool1d(3, 2)] if pooled else []),
        )
        self.recurrent = units(third)
        self.output = nn.Linear(third, text_dim)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.08, 0.08)
        self._extractor: tuple[nn.Module, ...] = ()  # In a tuple it is no part of this module, nor of its checkpoints.
        self._seen: dict[int, dict[str, CatMetric]] = {}  # of each held-out loader

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of M texts, `(M, text_dim)`."""
        places = encode_characters(texts, self.strict).to(self.device)
        characters = one_hot(places).to(self.output.weight.dtype)
        return self.output(self.recurrent(self.convolutions(characters)))

    # What belongs together --------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Find the network that sees the images."""
        super().setup(stage)
        if self._extractor or stage == "predict":
            return
        if self.hparams["extractor"] is None:
            raise DataError(
                "CharCNNRNN learns beside the features of images, and has no network for them; give --model.extractor "
                "and --model.extractor_args, such as AttributeFeatures and its ckpt_path."
            )
        extractor: Any = make_frozen(self.hparams["extractor"], self.hparams["extractor_args"] or {}, "extractor")
        if (width := extractor.num_features) != self.hparams["text_dim"]:
            raise DataError(f"The images have {width} features; give --model.text_dim {width}, which must be alike.")
        self._extractor = (extractor.to(self.device),)

    def features(self, images: Tensor) -> Tensor:
        """What the frozen network sees in images, `(N, text_dim)`."""
        with torch.no_grad():
            return self._extractor[0].to(images.device)(images).features.to(self.dtype)

    def classes(self, batch: Batch) -> Tensor:
        """What makes images different: their attributes, or else their labels; `(N, A)`."""
        return batch["attributes"] if "attributes" in batch else batch["label"][:, None]

    def captions(self, batch: Batch) -> list[list[str]]:
        """The captions of each image, of which a batch holds one or several."""
        if "caption" not in batch:
            raise DataError(f"The batch holds {sorted(batch)}; CharCNNRNN needs captions: give it data with captions.")
        return [[row] if isinstance(row, str) else row for row in batch["caption"]]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of the first image of each class in the batch, with one of its captions."""
        batch = self.as_batch(batch)
        _, which = self.classes(batch).unique(dim=0, return_inverse=True)
        rows = which.new_full((int(which.max()) + 1,), len(which)).scatter_reduce_(
            0, which, torch.arange(len(which), device=which.device), "amin"
        )
        captions = self.captions(batch)
        own = [captions[row] for row in rows.tolist()]
        drawn = [row[int(u * len(row))] for row, u in zip(own, torch.rand(len(own)).tolist(), strict=True)]
        loss = joint_embedding_loss(self.features(batch["image"][rows]) @ self(drawn).T)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(rows))
        return loss

    def configure_optimizers(self) -> pl.utilities.types.OptimizerLRScheduler:
        optimizer = torch.optim.RMSprop(self.parameters(), lr=self.hparams["lr"])
        return {
            "optimizer": optimizer,
            "lr_scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, self.hparams["decay"]),
        }

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """The mean embedding of each image's captions, `(N, text_dim)`."""
        rows = self.captions(as_batch(batch))
        embeddings = self([text for row in rows for text in row])
        return torch.stack([part.mean(0) for part in embeddings.split([len(row) for row in rows])])

    # Retrieval --------------------------------------------------------------------------------------------------

    def figure_protocols(self, stage: str) -> dict[str, str]:
        among = f"an image's caption among {NUM_CANDIDATES}, of which the others are of images of another class"
        return {
            "retrieval": f"share found: {among}",
            **{f"wrong_{name}": "share where the caption found says it wrongly" for name in self.attribute_names},
        }

    def on_validation_epoch_start(self) -> None:
        """Forget what was seen before."""
        self._seen.clear()

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keep what is seen in images and what their captions become; one caption of each, of another form in turn."""
        batch = self.as_batch(batch)
        texts = [row[(index + batch_idx) % len(row)] for index, row in enumerate(self.captions(batch))]
        if dataloader_idx not in self._seen:
            self._seen[dataloader_idx] = {name: CatMetric().to(self.device) for name in ("image", "text", "classes")}
        seen = self._seen[dataloader_idx]
        seen["image"].update(self.features(batch["image"]))
        seen["text"].update(self(texts).to(self.dtype))
        seen["classes"].update(self.classes(batch).float())

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Log `val/retrieval`, and for each attribute how often the caption found says it wrongly."""
        self._score("val")

    def on_test_epoch_end(self) -> None:
        """Log `test/retrieval`, and for each attribute how often the caption found says it wrongly."""
        self._score("test")

    def _score(self, stage: str) -> None:
        for dataloader_idx, seen in self._seen.items():
            images, texts, classes = (seen[name].compute() for name in ("image", "text", "classes"))
            found = retrieve(images @ texts.T, classes)
            wrong = classes[found] != classes
            figures = {f"{stage}/retrieval": 1 - wrong.any(1).float().mean()}
            for name, share in zip(self.attribute_names, wrong.float().mean(0), strict=False):
                figures[f"{stage}/wrong_{name}"] = share
            self.log_of_loader(figures, dataloader_idx)

    def check_batch(self, batch: Batch) -> None:
        """Also refuse a batch without captions, or without classes."""
        super().check_batch(batch)
        self.captions(batch)
        if not {"attributes", "label"} & set(batch):
            raise DataError(
                f"The batch holds {sorted(batch)}; CharCNNRNN tells images apart by attributes or labels: give it "
                "data that have either, as CaptionedDigitsDataModule."
            )


def retrieve(scores: Tensor, classes: Tensor) -> Tensor:
    """Which caption an image is nearest to, among its own and random ones of other classes, with a fixed seed.

    Args:
        scores: of each image with each caption, `(N, N)`.
        classes: `(N, A)`.

    Returns:
        Integers `(N,)`, the row of the caption.
    """
    number = len(scores)
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(number, number, generator=generator).to(scores.device)
    same = (classes[:, None] == classes[None]).all(2)
    others = order.masked_fill(same, -1).topk(min(NUM_CANDIDATES - 1, number), 1)
    candidates = torch.cat([torch.arange(number, device=scores.device)[:, None], others.indices], 1)
    there = torch.cat([candidates.new_ones(number, 1).bool(), others.values >= 0], 1)
    best = scores.gather(1, candidates).masked_fill(~there, -torch.inf).argmax(1, keepdim=True)
    return candidates.gather(1, best).squeeze(1)
