"""A network that puts images into words, and says how probable a text is under an image.

Donahue, Hendricks, Guadarrama, Rohrbach, Venugopalan, Saenko, Darrell, "Long-term Recurrent Convolutional Networks for
Visual Recognition and Description", CVPR 2015 (https://arxiv.org/abs/1411.4389), the two-layer factored variant, which
Nguyen et al. 2017 plug into PPGN. A text is the words w_1 .. w_T and an end, w_{T+1} = 0:

    log p(w | x) = sum_{t=1}^{T+1} log p(w_t | w_0 .. w_{t-1}, x),    w_0 = 0.

The first LSTM reads words alone, the second one what the first says beside the image's features. Theirs is AlexNet,
pretrained on ImageNet; ours is a small convolutional network, trained with the rest. See configs/captioner/README.md.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gen.arguments import ImageShape, NonNegative, Size
from lightning_gen.errors import CheckpointError, ConditionError, DataError, did_you_mean
from lightning_gen.functional.captions import read_digit_caption
from lightning_gen.models.base import Batch, FirstLook, ImageModule, as_batch
from lightning_gen.nn.digits import convolution

END = 0  # The index of what begins and ends a text; words count from 1.


def split_words(text: str) -> list[str]:
    """The words of a text, without case and punctuation."""
    return re.findall(r"[a-z0-9']+", text.lower())


class CaptionNetwork(nn.Module):
    """Image and words so far -> logits of the next word.

    Args:
        image_shape: `(C, H, W)`.
        num_words: V, without the end.
        base_channels: of the first convolution; each of three halvings doubles them.
        feature_dim: F, of an image.
        embedding_dim: of a word.
        hidden_size: H, of each LSTM.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        num_words: int,
        base_channels: int,
        feature_dim: int,
        embedding_dim: int,
        hidden_size: int,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.image = nn.Sequential(
            *convolution(channels, base_channels, kernel_size=5, stride=2),
            *convolution(base_channels, 2 * base_channels, kernel_size=3, stride=2),
            *convolution(2 * base_channels, 4 * base_channels, kernel_size=3, stride=2),
            nn.Flatten(),
            nn.Linear(4 * base_channels * -(-height // 8) * -(-width // 8), feature_dim),  # fc8: no ReLU.
        )
        self.words = nn.Embedding(num_words + 1, embedding_dim)
        self.language = nn.LSTM(embedding_dim, hidden_size, batch_first=True)
        self.joint = nn.LSTM(hidden_size + feature_dim, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, num_words + 1)

    def forward(self, features: Tensor, words: Tensor) -> Tensor:
        """Logits after each word: features `(N, F)`, words `(N, T)` from w_0 on -> `(N, T, V + 1)`."""
        # cuDNN's recurrent layers have no gradient in eval mode, in which the image's gradient is asked for. Autocast's
        # have none on processors without 16-bit arithmetic.
        with torch.backends.cudnn.flags(enabled=self.training), torch.autocast(features.device.type, enabled=False):
            said, _ = self.language(self.words(words))
            seen = features.to(said.dtype)[:, None].expand(-1, words.shape[1], -1)
            hidden, _ = self.joint(torch.cat([said, seen], 2))
        return self.head(hidden)


class Captioner(ImageModule):
    """Puts images into words; the defaults are the published sizes.

    The vocabulary is that of the training captions, counted when training begins, and part of the checkpoint. Of more
    than `init_images` images the first ones are counted; words that only others have are left out when it trains.

    Args:
        image_shape: `(C, H, W)`.
        vocabulary: the words, in the order of their numbers from 1 on; those of the training captions if None.
        base_channels: of the first convolution.
        feature_dim: of an image.
        embedding_dim: of a word.
        hidden_size: of each LSTM.
        max_words: of a caption, without its end.
        lr: Adam's step size.
        max_grad_norm: gradients are clipped to this norm.

    Raises:
        DataError: if a batch has no captions.
    """

    frequencies: Tensor
    common: Tensor

    def __init__(
        self,
        image_shape: ImageShape = (3, 227, 227),
        vocabulary: list[str] | None = None,
        base_channels: Size = 32,
        feature_dim: Size = 1000,
        embedding_dim: Size = 1000,
        hidden_size: Size = 1000,
        max_words: Size = 20,
        lr: NonNegative = 2e-3,
        max_grad_norm: NonNegative = 10.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.image_shape = tuple(map(int, image_shape))
        self.max_words = max_words
        self.vocabulary: list[str] = []
        self.network: CaptionNetwork | None = None
        if vocabulary is not None:
            self._build(vocabulary)
        self._sums: dict[int, list[Tensor]] = defaultdict(list)  # of each held-out loader

    def _build(self, vocabulary: Sequence[str]) -> None:
        """Make the network, now that its number of words is known."""
        self.vocabulary = list(vocabulary)
        self.hparams["vocabulary"] = self.vocabulary
        self.indices = {word: index for index, word in enumerate(self.vocabulary, start=1)}
        sizes = [self.hparams[key] for key in ("base_channels", "feature_dim", "embedding_dim", "hidden_size")]
        self.network = CaptionNetwork(self.image_shape, len(vocabulary), *sizes)
        # What the trivial captioners know: how often a word is next, ends included, and the most frequent caption.
        self.register_buffer("frequencies", torch.full((len(vocabulary) + 1,), 1 / (len(vocabulary) + 1)))
        self.register_buffer("common", torch.zeros(self.max_words, dtype=torch.long))

    def setup(self, stage: str) -> None:
        """Count the words of the training captions before the first `fit`."""
        if stage == "fit" and self.network is None and self.trainer.limit_train_batches != 0:
            with torch.random.fork_rng(devices=[]):  # Going through the data costs no draws of training's stream.
                self.read_vocabulary()
        super().setup(stage)

    def read_vocabulary(self, batches: Iterable[Any] | None = None) -> None:
        """Take the vocabulary, the words' frequencies and the most frequent caption from training batches.

        A Trainer does it before the first `fit`; a loop of one's own before it makes the optimizer.

        Args:
            batches: of all ranks, as the first rank is the only one to read them; the Trainer's own if None.
        """

        def count(look: FirstLook) -> Counter[tuple[str, ...]]:
            rows = (row for batch in look for row in self._captions(batch))
            return Counter(tuple(split_words(text)) for row in rows for text in row)

        texts: Counter[tuple[str, ...]] = self.look_at_data(count, batches)
        counts: Counter[str] = Counter()
        for words, number in texts.items():
            counts.update({word: number * words.count(word) for word in set(words)})
        self._build(sorted(counts))
        ordered = torch.tensor([float(sum(texts.values()))] + [float(counts[word]) for word in self.vocabulary])
        self.frequencies = ordered / ordered.sum()
        first = min(texts, key=lambda words: (-texts[words], words))
        self.common = self.encode([" ".join(first)], self.max_words)[0]

    # Texts and numbers ------------------------------------------------------------------------------------------

    def encode(self, captions: Sequence[str], length: int | None = None) -> Tensor:
        """Numbers of the words, `(N, T)` on the module's device, followed by 0; T is the longest caption's.

        Raises:
            ConditionError: if a caption is empty, has more than `max_words` words, or one that is not known.
        """
        if isinstance(captions, str):
            raise ConditionError(f"One text was given, {captions!r}; expected a list with one for each image.")
        rows = []
        for text in captions:
            words = split_words(text)
            if not 1 <= len(words) <= self.max_words:
                raise ConditionError(f"The caption {text!r} has {len(words)} words; expected 1 to {self.max_words}.")
            for word in words:
                if word not in self.indices:
                    hint = did_you_mean(word, self.vocabulary) or f"; it knows {len(self.vocabulary)} words."
                    raise ConditionError(f"The caption {text!r} holds {word!r}, which the captioner never saw{hint}")
            rows.append([self.indices[word] for word in words])
        length = length or max(map(len, rows), default=1)
        padded = [row + [END] * (length - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.long, device=self.device).view(len(rows), length)

    def decode(self, words: Tensor) -> list[str]:
        """The text of each row of numbers, up to its end."""
        texts = []
        for row in words.tolist():
            end = row.index(END) if END in row else len(row)
            texts.append(" ".join(self.vocabulary[index - 1] for index in row[:end]))
        return texts

    # The model --------------------------------------------------------------------------------------------------

    def log_prob(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """How probable each caption is under its image, in nats; differentiable in the images.

        Args:
            images: `(N, C, H, W)` in [0, 1].
            captions: N texts.

        Returns:
            `(N,)`: the sum over the words and the end of the text; what pads a shorter text counts nothing.

        Raises:
            ConditionError: if a caption is empty, too long, or has words that are not known.
        """
        if len(images) != len(captions):
            raise ConditionError(f"There are {len(captions)} captions for {len(images)} images; expected one for each.")
        return self.word_log_probs(self._trained().image(images), self.encode(captions)).sum(1)

    def word_log_probs(self, features: Tensor, words: Tensor) -> Tensor:
        """Of features `(N, F)` and texts `(N, T)`: log p(w_t | ..) of each word and the end, `(N, T + 1)`, then 0."""
        start = words.new_full((len(words), 1), END)
        logits = self._trained()(features, torch.cat([start, words], 1))  # (N, T + 1, V + 1)
        targets = torch.cat([words, start], 1)
        scores = -F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        ended = (targets == END).cumsum(1) > 1  # After the first end.
        return scores.masked_fill(ended, 0)

    def describe(self, images: Tensor, generator: torch.Generator | None = None, greedy: bool = True) -> list[str]:
        """Put images into words, each the most probable one (`greedy`) or drawn with its probability."""
        with torch.no_grad():
            features = self._trained().image(images)
            words = torch.full((len(images), 1), END, device=images.device)
            for _ in range(self.max_words):
                logits = self._trained()(features, words)[:, -1]
                if greedy:
                    drawn = logits.argmax(1, keepdim=True)
                else:
                    drawn = logits.softmax(1).multinomial(1, generator=generator)
                words = torch.cat([words, drawn], 1)
            return self.decode(words[:, 1:])

    def _trained(self) -> CaptionNetwork:
        if self.network is None:
            raise CheckpointError(
                "The captioner has no words yet; train it: lightning-gen fit --config captioner/digits"
            )
        return self.network

    # Training and figures ---------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Nats a word, ends included, under one caption of each image, drawn at random."""
        batch = self.as_batch(batch)
        rows = self._captions(batch)
        shares = torch.rand(len(rows)).tolist()
        texts = [split_words(row[int(u * len(row))]) for u, row in zip(shares, rows, strict=True)]
        words = self.encode([" ".join(word for word in text if word in self.indices) for text in texts])
        log_probs = self.word_log_probs(self._trained().image(batch["image"]), words)
        loss = -log_probs.sum() / ((words != END).sum() + len(words))
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def figure_protocols(self, stage: str) -> dict[str, str]:
        return {
            "perplexity": "per word, ends included, over all captions",
            "perplexity_unigram": "the same of words drawn as often as in training",
            "attributes": "share of greedy captions that say every attribute rightly",
            "attributes_common": "the same of the most frequent training caption",
        }

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score all captions, and what the captioner says itself."""
        self._score(self.as_batch(batch), dataloader_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score all captions, and what the captioner says itself."""
        self._score(self.as_batch(batch), dataloader_idx)

    def _score(self, batch: Batch, dataloader_idx: int) -> None:
        rows = self._captions(batch)
        words = self.encode([text for row in rows for text in row])
        sizes = torch.tensor([len(row) for row in rows], device=self.device)
        features = self._trained().image(batch["image"]).repeat_interleave(sizes, 0)
        log_probs = self.word_log_probs(features, words).sum()
        unigram = self.frequencies.log()
        number = (words != END).sum() + len(words)
        by_unigram = unigram[words[words != END]].sum() + len(words) * unigram[END]
        right = common = described = 0
        if "attributes" in batch:
            truth = [tuple(row) for row in batch["attributes"].tolist()]
            said = [read_digit_caption(text) for text in self.describe(batch["image"])]
            usual = read_digit_caption(self.decode(self.common[None])[0])
            right = sum(a == b for a, b in zip(said, truth, strict=True))
            common, described = truth.count(usual) if usual else 0, len(truth)
        sums = [number, log_probs, by_unigram, right, common, described]
        row = torch.stack([torch.as_tensor(v, dtype=torch.float32, device=self.device) for v in sums])
        self._sums[dataloader_idx].append(row)

    def on_validation_epoch_end(self) -> None:
        """Log the figures."""
        self._log_figures("val")

    def on_test_epoch_end(self) -> None:
        """Log the figures."""
        self._log_figures("test")

    def _log_figures(self, stage: str) -> None:
        for dataloader_idx, rows in self._sums.items():
            sums = self.reduce(torch.stack(rows).sum(0), "sum").tolist()
            number, log_probs, by_unigram, right, common, described = sums
            perplexity, unigram = math.exp(-log_probs / number), math.exp(-by_unigram / number)
            figures = {f"{stage}/perplexity": perplexity, f"{stage}/perplexity_unigram": unigram}
            if described:
                figures[f"{stage}/attributes"] = right / described
                figures[f"{stage}/attributes_common"] = common / described
            self.log_of_loader(figures, dataloader_idx, rank_zero_only=False)
        self._sums.clear()

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> list[str]:
        """A greedy caption of each image."""
        return self.describe(self.converted(as_batch(batch))["image"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clip the norm of all gradients, as LRCN does."""
        self.clip_gradients(optimizer, self.hparams["max_grad_norm"], "norm")

    def check_batch(self, batch: Batch) -> None:
        """Also refuse a batch without captions."""
        super().check_batch(batch)
        self._captions(batch)

    def _captions(self, batch: Batch) -> list[list[str]]:
        """The captions of each image, one or several."""
        if "caption" not in batch:
            raise DataError(f"The batch holds {sorted(batch)}; Captioner needs 'caption': give it data with captions.")
        rows = [[row] if isinstance(row, str) else list(row) for row in batch["caption"]]
        if empty := [index for index, row in enumerate(rows) if not row]:
            raise DataError(f"The image {empty[0]} of a batch has no caption; expected at least one for each.")
        return rows
