"""Models under captions, which a frozen encoder turns into vectors, each caption once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gen.errors import ConditionError, DataError, WeightsNotFoundError
from lightning_gen.models.base import Batch, Condition, GenerativeModule
from lightning_gen.nn.frozen import read_weights

CHUNK = 250  # Captions encoded at a time.


class CaptionedModule(GenerativeModule):
    """A model under captions; to stand before another base, as in `class GANINTCLS(CaptionedModule, ...)`.

    Images have one caption or several. With a text encoder, batches and conditions hold them as `caption`: for each
    image a text or a list of texts. Without one the data bring `text_embedding`, `(N, text_dim)`, or `(N, K, text_dim)`
    for K captions each; a condition may hold it in either case. The encoder is frozen, and a caption is encoded when it
    is first met and kept in memory: an embedding costs its encoding once in a process, and a look into a table after.

    Attributes:
        text_dim: length of an embedding.
        text_encoder: a frozen module that takes a list of texts and gives `(M, text_dim)`; None without one.
    """

    text_dim: int
    text_encoder: nn.Module | None

    def set_text(self, text_dim: int, encoder: nn.Module | None, weights: str | None) -> None:
        """Say what turns captions into vectors; in `__init__`.

        Args:
            text_dim: length of an embedding.
            encoder: takes a list of texts and gives `(M, text_dim)`; None if the data bring embeddings.
            weights: a checkpoint of the encoder, read once, at the start of the first `fit`.
        """
        self.text_dim = text_dim
        self.text_encoder = None if encoder is None else encoder.requires_grad_(False).eval()
        self.text_weights = weights
        self.condition_keys = ("text_embedding",) if encoder is None else ("caption",)
        self._embeddings: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> Any:
        """Set the mode of all but the encoder, which stays in eval mode."""
        super().train(mode)
        if self.text_encoder is not None:
            self.text_encoder.eval()
        return self

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load weights, and forget what other ones made of captions."""
        self._embeddings.clear()
        return super().load_state_dict(*args, **kwargs)

    def initialize_from(self, batches: Iterable[Any]) -> None:
        """Read the encoder's weights, if it has any.

        Raises:
            WeightsNotFoundError: if it was given none.
            CheckpointError: if they are of another encoder.
        """
        if self.text_encoder is None or not self.text_encoder.state_dict():
            return
        if self.text_weights is None:
            raise WeightsNotFoundError(
                f"The text encoder of {type(self).__name__} has no weights; train one (lightning-gen fit --config "
                "char_cnn_rnn/digits) and give its checkpoint: --model.encoder_weights PATH."
            )
        read_weights(self.text_encoder, self.text_weights)
        self._embeddings.clear()

    # What is asked for ------------------------------------------------------------------------------------------

    def check_text(self, values: Any, key: str, error: type[ConditionError] | type[DataError]) -> None:
        """Refuse captions that are no texts, and embeddings of another length."""
        if key == "text_embedding":
            if not (isinstance(values, Tensor) and values.ndim in (2, 3) and values.shape[-1] == self.text_dim):
                found = (
                    f"the shape {tuple(values.shape)}" if isinstance(values, Tensor) else repr(type(values).__name__)
                )
                raise error(
                    f"{type(self).__name__} got text_embedding of {found}; expected (N, {self.text_dim}) or "
                    f"(N, K, {self.text_dim}), by the encoder that made them."
                )
            return
        if isinstance(values, str):
            raise error(f"{type(self).__name__} got one text, {values!r}; expected a list with one for each image.")
        for index, row in enumerate(values):
            texts = [row] if isinstance(row, str) else row
            if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
                raise error(
                    f"{type(self).__name__} got {row!r} as the caption of image {index}; expected a text, or a list of "
                    "texts, none of them empty."
                )

    def check_batch(self, batch: Batch) -> None:
        """Also refuse a batch without captions."""
        super().check_batch(batch)
        for key in self.condition_keys:
            if key not in batch:
                remedy = (
                    "give it data with captions"
                    if key == "caption"
                    else "give it data with embeddings, or --model.encoder and --model.encoder_weights"
                )
                raise DataError(f"The batch holds {sorted(batch)}; {type(self).__name__} needs {key!r}: {remedy}.")
            self.check_text(batch[key], key, DataError)
            if len(batch[key]) != (number := len(batch[self.data_key])):
                raise DataError(
                    f"The batch holds {number} of {self.data_key!r} and {len(batch[key])} of {key!r}; "
                    f"{type(self).__name__} needs as many, a text or a list of texts for each."
                )

    def check_condition(
        self, condition: Condition | None, num_samples: int, generator: torch.Generator | None = None
    ) -> Condition:
        """Check captions or embeddings; what is returned holds embeddings, `(num_samples, text_dim)`.

        Of several captions of an image the embeddings are averaged, as in training.
        """
        given = None if condition is None else dict(condition)
        key = own = self.condition_keys[0]
        if given is not None and "text_embedding" in given and own not in given:
            key = "text_embedding"
            given[own] = given.pop(key)  # It takes the place of captions.
        if given is not None and own in given:
            self.check_text(given[own], key, ConditionError)
        checked = dict(super().check_condition(given, num_samples, generator) or {})
        text = checked.pop(own)
        if key == "caption":
            text = self.embed_captions(text)
        return {**checked, "text_embedding": text.mean(1) if text.ndim == 3 else text}

    # Embeddings -------------------------------------------------------------------------------------------------

    def embed_captions(self, captions: Sequence[str | Sequence[str]]) -> Tensor:
        """What the encoder makes of captions; of several of one image the mean.

        Args:
            captions: N texts, or lists of texts.

        Returns:
            `(N, text_dim)` on the module's device.

        Raises:
            DataError: if the encoder's embeddings are of another length.
        """
        assert self.text_encoder is not None
        dtype: Any = self.dtype
        rows = [[row] if isinstance(row, str) else list(row) for row in captions]
        new = list(dict.fromkeys(text for row in rows for text in row if text not in self._embeddings))
        # In float32 whoever asks first: training may run in another precision than sampling.
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            for start in range(0, len(new), CHUNK):
                part = new[start : start + CHUNK]
                encoded = self.text_encoder(part)
                if encoded.shape[1] != self.text_dim:
                    raise DataError(
                        f"The text encoder gives {encoded.shape[1]} numbers and {type(self).__name__} takes "
                        f"{self.text_dim}; give --model.text_dim {encoded.shape[1]}."
                    )
                self._embeddings.update(zip(part, encoded, strict=True))
        sizes = [len(row) for row in rows]
        table = torch.stack([self._embeddings[text] for row in rows for text in row]).to(self.device, dtype)
        if len(set(sizes)) == 1:
            return table.unflatten(0, (len(rows), sizes[0])).mean(1)
        return torch.stack([part.mean(0) for part in table.split(sizes)])

    def draw_text(self, batch: Batch, number: int) -> Tensor:
        """The mean embedding of so many captions of each image, drawn with replacement, `(N, text_dim)`."""
        if self.text_encoder is None:
            text = batch["text_embedding"].to(self.dtype)
            if text.ndim == 2:
                return text
            drawn = torch.randint(text.shape[1], (len(text), number), device=text.device)
            return text.gather(1, drawn[..., None].expand(-1, -1, self.text_dim)).mean(1)
        rows = [[row] if isinstance(row, str) else row for row in batch["caption"]]
        shares = torch.rand(len(rows), number).tolist()
        return self.embed_captions([[row[int(u * len(row))] for u in us] for row, us in zip(rows, shares, strict=True)])
