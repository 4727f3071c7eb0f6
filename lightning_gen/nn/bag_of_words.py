"""Captions as the words that they hold."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_gen.errors import ConditionError, DataError, did_you_mean


class BagOfWords(nn.Module):
    """An encoder that has nothing to learn, for captions of a few words: which of its words each of them holds.

    Case and punctuation do not count, nor does the order.

    Args:
        words: all that captions may hold, in a list, or in one text where some of them are numbers and switches to YAML
            (4, on).

    Raises:
        DataError: if a word is something else.
    """

    def __init__(self, words: str | Sequence[str]) -> None:
        super().__init__()
        listed = words.split() if isinstance(words, str) else words
        if others := [word for word in listed if not isinstance(word, str)]:
            raise DataError(f"The words hold {others[0]!r}, which is none; give them in one text, with blanks between.")
        self.columns = {word: column for column, word in enumerate(listed)}

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
