"""Captions as the words that they hold."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from lightning_gen.errors import ConditionError, DataError


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
        """0 or 1 for each word of each text, `(M, len(words))`; other words are left out, with a warning for each.

        Raises:
            ConditionError: if a text holds other words only.
        """
        bags = torch.zeros(len(texts), len(self.columns))
        for bag, text in zip(bags, texts, strict=True):
            words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
            known = [word for word in words if word in self.columns]
            if not known:
                raise ConditionError(f"The caption {text!r} holds none of the words {', '.join(self.columns)}.")
            for word in sorted(set(words) - set(known)):
                nearest = get_close_matches(word, list(self.columns), cutoff=0.4) or self.columns
                told = f"The model has never seen {word!r}, which is left out; the nearest that it knows:"
                warnings.warn(f"{told} {', '.join(nearest)}.", stacklevel=2)
            bag[[self.columns[word] for word in known]] = 1
        return bags
