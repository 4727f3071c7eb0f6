"""Captions as the words that they hold."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_gen.errors import ConditionError, did_you_mean


class BagOfWords(nn.Module):
    """An encoder that has nothing to learn, for captions of a few words: which of its words each of them holds.

    Case and punctuation do not count, nor does the order.

    Args:
        words: all that captions may hold.
    """

    def __init__(self, words: Sequence[str]) -> None:
        super().__init__()
        self.columns = {word: column for column, word in enumerate(words)}

    def forward(self, texts: Sequence[str]) -> Tensor:
        """0 or 1 for each word of each text, `(M, len(words))`.

        Raises:
            ConditionError: if a text holds other words.
        """
        bags = torch.zeros(len(texts), len(self.columns))
        for row, text in enumerate(texts):
            for word in "".join(c if c.isalnum() else " " for c in text.lower()).split():
                if word not in self.columns:
                    hint = did_you_mean(word, self.columns) or f"; expected {', '.join(self.columns)}."
                    raise ConditionError(f"The caption {text!r} holds {word!r}, which the model has never seen{hint}")
                bags[row, self.columns[word]] = 1
        return bags
