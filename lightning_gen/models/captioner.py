r"""A captioner of images after LRCN: convolutions see, two layers of LSTM tell.

Donahue et al., "Long-term Recurrent Convolutional Networks for Visual Recognition and Description" (2015),
https://arxiv.org/abs/1411.4389, in the form that Nguyen et al. 2017 (Plug & Play Generative Networks) condition on: the
first LSTM reads words alone, the second one its states and the image,

    p(caption | x) = prod_t p(w_t | w_1 .. w_{t-1}, x),   with an end token as the last word.

See configs/captioner/README.md for what differs and why.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gen.errors import ConditionError, DataError
from lightning_gen.models.base import Batch, ImageModule, as_batch
from lightning_gen.nn.attributes import AttributeNetwork

END = 0  # The token before the first word and after the last one; words count from 1.


def words_of(caption: str) -> list[str]:
    """The words of a caption, in small letters and without its marks.

    >>> words_of("A thick, slanted 7!")
    ['a', 'thick', 'slanted', '7']
    """
    return re.findall(r"[\w']+", caption.lower())


class Captioner(ImageModule):
    """Tells what is in an image, and scores what is told.

    Args:
        vocabulary: the words that there are.
        image_shape: `(C, H, W)`.
        base_channels: of the first convolution.
        num_features: of the image, the last layer of the convolutions; AlexNet's 1,000 in LRCN.
        embedding_dim: of a word.
        hidden_size: of each of the two LSTMs.
        max_words: in a caption that is generated.
        lr: Adam's step size.

    Raises:
        DataError: if a batch has no captions.
        ConditionError: if a caption is empty, or has words that the vocabulary has not.
    """

    def __init__(
        self,
        vocabulary: list[str],
        image_shape: tuple[int, ...] = (3, 32, 32),
        base_channels: int = 16,
        num_features: int = 1000,
        embedding_dim: int = 1000,
        hidden_size: int = 1000,
        max_words: int = 20,
        lr: float = 1e-3,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.image_shape = tuple(image_shape)
        self.vocabulary = list(vocabulary)
        self.max_words = max_words
        self._number = {word: index for index, word in enumerate(self.vocabulary, start=1)}
        size = len(self.vocabulary) + 1
        self.image_network = AttributeNetwork(self.image_shape, {"unused": 1}, base_channels, num_features).body
        self.embedding = nn.Embedding(size, embedding_dim)
        self.words = nn.LSTM(embedding_dim, hidden_size, batch_first=True)
        self.story = nn.LSTM(hidden_size + num_features, hidden_size, batch_first=True)
        self.output = nn.Linear(hidden_size, size)

    def encode(self, captions: Sequence[str]) -> Tensor:
        """Numbers of the words, the end token before and after them; `(N, T + 2)`, with -1 behind shorter captions.

        Raises:
            ConditionError: if a caption is empty, or has words that the vocabulary has not.
        """
        texts = [words_of(caption) for caption in captions]
        if unknown := sorted({word for text in texts for word in text} - self._number.keys()):
            raise ConditionError(
                f"The captioner does not know {', '.join(map(repr, unknown))}; it knows {', '.join(self.vocabulary)}."
            )
        if not all(texts):
            raise ConditionError("A caption is empty; expected some words.")
        rows = torch.full((len(texts), max(map(len, texts), default=0) + 2), -1)
        for row, text in zip(rows, texts, strict=True):
            row[: len(text) + 2] = torch.tensor([END, *(self._number[word] for word in text), END])
        return rows.to(self.device)

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Logits of the token after each one.

        Args:
            images: `(N, C, H, W)` in [0, 1].
            tokens: integers `(N, T)`.

        Returns:
            `(N, T, V + 1)`.
        """
        told, _ = self.words(self.embedding(tokens.clamp(min=0)))
        seen = self.image_network(images)[:, None].expand(-1, tokens.shape[1], -1)
        return self.output(self.story(torch.cat([told, seen], 2))[0])

    def word_log_probs(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """Log p of each word and of the end in nats, `(N, T + 1)`; 0 behind shorter captions."""
        tokens = self.encode(captions)
        targets = tokens[:, 1:]
        log_probs = self(images, tokens[:, :-1]).log_softmax(2)
        own = log_probs.gather(2, targets.clamp(min=0)[..., None]).squeeze(2)
        return own.where(targets >= 0, 0.0)

    def log_prob(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """Log p(caption | image) in nats, `(N,)`: the sum over words and the end; it has a gradient by the images.

        Raises:
            ConditionError: if there is not a caption for each image, or one that cannot be read.
        """
        if len(captions) != len(images):
            raise ConditionError(f"{len(captions)} captions were given for {len(images)} images.")
        return self.word_log_probs(images, captions).sum(1)

    def caption(self, images: Tensor) -> list[str]:
        """The most probable words one after the other, for each image."""
        with torch.no_grad():
            tokens = torch.full((len(images), 1), END, device=images.device)
            for _ in range(self.max_words):
                tokens = torch.cat([tokens, self(images, tokens)[:, -1].argmax(1, keepdim=True)], 1)
        texts = []
        for row in tokens[:, 1:].tolist():
            length = row.index(END) if END in row else len(row)
            texts.append(" ".join(self.vocabulary[token - 1] for token in row[:length]))
        return texts

    # Training and scoring ---------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Minus the mean log-probability of a word, with one caption of each image."""
        batch = self.as_batch(batch)
        shares = torch.rand(len(batch["caption"])).tolist()
        drawn = [row[int(u * len(row))] for row, u in zip(batch["caption"], shares, strict=True)]
        tokens = self.encode(drawn)
        logits = self(batch["image"], tokens[:, :-1])
        loss = F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], ignore_index=-1)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(tokens))
        return loss

    def figure_protocols(self, stage: str) -> dict[str, str]:
        return {
            "nll": "nats for each word or end, one caption an image",
            "right": "share of captions told, all of whose words are in the image's own captions",
        }

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log `val/nll` and `val/right`."""
        self._score(self.as_batch(batch), batch_idx, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log `test/nll` and `test/right`."""
        self._score(self.as_batch(batch), batch_idx, "test")

    def _score(self, batch: Batch, batch_idx: int, stage: str) -> None:
        captions = batch["caption"]
        texts = [row[(index + batch_idx) % len(row)] for index, row in enumerate(captions)]
        num_words = sum(len(words_of(text)) + 1 for text in texts)
        nll = -self.log_prob(batch["image"], texts).sum() / num_words
        told = self.caption(batch["image"])
        own = [{word for text in row for word in words_of(text)} for row in captions]
        right = [bool(text) and set(text.split()) <= words for text, words in zip(told, own, strict=True)]
        self.log(f"{stage}/nll", nll, batch_size=num_words, sync_dist=True)
        self.log(f"{stage}/right", sum(right) / len(right), batch_size=len(right), sync_dist=True)

    def predict_step(self, batch: Any, batch_idx: int) -> list[str]:
        """A caption for each image."""
        return self.caption(as_batch(batch)["image"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])

    def check_batch(self, batch: Batch) -> None:
        """Also refuse a batch without captions."""
        super().check_batch(batch)
        if "caption" not in batch:
            raise DataError(
                f"The batch holds {sorted(batch)}; Captioner needs captions, as CaptionedDigitsDataModule has them."
            )
