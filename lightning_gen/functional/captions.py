"""What captions of digits say: attributes, their values, and the words for each."""

from __future__ import annotations

import re

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

ATTRIBUTES: dict[str, tuple[tuple[str, ...], ...]] = {
    "digit": tuple((name, str(number)) for number, name in enumerate(DIGITS)),
    "thickness": (("thin", "fine"), ("medium", "regular"), ("thick", "bold")),
    "slant": (("upright", "straight"), ("slanted", "leaning")),
    "colour": (
        ("red", "crimson"),
        ("green", "emerald"),
        ("blue", "azure"),
        ("yellow", "golden"),
        ("purple", "violet"),
        ("white", "pale"),
    ),
    "position": (("on the left", "at the left"), ("in the middle", "in the centre"), ("on the right", "at the right")),
}
"""For each attribute its values, and for each value the words that a caption may say it with."""


def read_digit_caption(text: str) -> tuple[int, ...] | None:
    """The value of each attribute that a caption says, in the order of `ATTRIBUTES`.

    Colour and position are left out where the text says neither, as captions of plain digits do.

    Returns:
        None if the text says anything else twice, or not at all.

    >>> read_digit_caption("A bold leaning seven in crimson at the left")
    (7, 2, 1, 0, 0)
    >>> read_digit_caption("a thin, upright 3")
    (3, 0, 0)
    >>> read_digit_caption("a thin thick three")
    """
    said = f" {' '.join(re.findall(r'[a-z0-9]+', text.lower()))} "
    values = [
        [value for value, synonyms in enumerate(words) if any(f" {word} " in said for word in synonyms)]
        for words in ATTRIBUTES.values()
    ]
    if not values[-1] and not values[-2]:
        values = values[:-2]
    return tuple(found[0] for found in values) if all(len(found) == 1 for found in values) else None
