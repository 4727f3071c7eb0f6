"""Real digits in a colour and at a place, with captions that tell what is measured in them and what was given to them.

In the place of the birds and flowers of Reed et al. 2016, "Generative Adversarial Text to Image Synthesis".
"""

from __future__ import annotations

import re
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from lightning_gen.arguments import Count, Size
from lightning_gen.datamodules.base import HELD_OUT_SEED, Batch, Columns, ImageDataModule, Split, take
from lightning_gen.datamodules.digits import DigitsDataModule
from lightning_gen.datamodules.mnist import MNISTDataModule
from lightning_gen.errors import DataError
from lightning_gen.functional.captions import ATTRIBUTES
from lightning_gen.functional.strokes import stroke_slant, stroke_thickness

COLOURS = {
    "red": (1.0, 0.2, 0.2),
    "green": (0.2, 1.0, 0.2),
    "blue": (0.3, 0.4, 1.0),
    "yellow": (1.0, 1.0, 0.1),
    "purple": (1.0, 0.2, 1.0),
    "white": (1.0, 1.0, 1.0),
}
"""The brightest channel of each is 1, so that the maximum over channels is the ink."""

THICKNESS_LIMITS = (2.38, 2.8)
"""Pixels of the 28 x 28 original between thin, medium and thick: a third of the digits in each."""

SLANT_LIMIT = 0.2
"""Tangent of the angle from which on a digit is slanted; two in five are."""

FORMS = (
    "a {thickness} {slant} {colour} {digit} {position}",
    "the {slant} {digit} {position} is {thickness} and {colour}",
    "{position} there is a {thickness} {colour} {digit}, {slant}",
    "a {colour} {digit} {position}, {thickness} and {slant}",
    "this {digit} is {colour}, {slant} and {thickness}, {position}",
    "a {slant} {digit} in {colour}, {thickness}, {position}",
    "{colour} {thickness} {slant} {digit} {position}",
    "someone wrote a {thickness} {slant} {digit} in {colour} {position}",
    "{position} stands a {slant} {thickness} {digit}, and it is {colour}",
    "{thickness} strokes, {slant}, {colour}: a {digit} {position}",
)
"""Ten captions of every image."""

PLAIN_FORMS = (
    "a {thickness} {slant} {digit}",
    "the {slant} {digit} is {thickness}",
    "there is a {thickness} {digit}, {slant}",
    "a {digit}, {thickness} and {slant}",
    "this {digit} is {slant} and {thickness}",
    "a {slant} {digit}, {thickness}",
    "{thickness} {slant} {digit}",
    "someone wrote a {thickness} {slant} {digit}",
    "here stands a {slant} {thickness} {digit}",
    "{thickness} strokes, {slant}: a {digit}",
)
"""The same where there is neither colour nor place."""


def measure(digits: Tensor) -> Tensor:
    """Bins of thickness and slant, `(N, 28, 28)` in [0, 1] -> integers `(N, 2)`."""
    thickness = torch.bucketize(stroke_thickness(digits), torch.tensor(THICKNESS_LIMITS), right=True)
    return torch.stack([thickness, (stroke_slant(digits) >= SLANT_LIMIT).long()], 1)


def is_held_out(digit: Tensor, colour: Tensor) -> Tensor:
    """Whether a digit in a colour is kept for the test: one of the six colours of each digit."""
    return digit % len(COLOURS) == colour


def write_captions(attributes: Tensor, names: tuple[str, ...], forms: tuple[str, ...]) -> list[list[str]]:
    """The captions of images, one in each form, with synonyms drawn by a fixed seed.

    Args:
        attributes: integers, `(N, len(names))`.
        names: which attributes they are.
        forms: with each of the names in braces.
    """
    generator = torch.Generator().manual_seed(HELD_OUT_SEED)
    synonyms = torch.randint(2, (len(attributes), len(forms), len(names)), generator=generator).tolist()
    words = [ATTRIBUTES[name] for name in names]
    captions = []
    for values, drawn in zip(attributes.tolist(), synonyms, strict=True):
        said = [
            form.format(**{n: w[value][word] for n, w, value, word in zip(names, words, values, row, strict=True)})
            for form, row in zip(forms, drawn, strict=True)
        ]
        captions.append([re.sub(r"\ba (?=[aeiou8])", "an ", text) for text in said])
    return captions


class CaptionedDigitsDataModule(ImageDataModule):
    """Real digits in one of six colours on the left, in the middle or on the right, with ten captions each.

    A batch holds `image`, `label` (the digit), `caption` (ten texts for each image), and `attributes`, integers
    `(N, 5)` in the order of `ATTRIBUTES`: digit, thickness, slant, colour, position. Thickness and slant are measured
    in the original digit; colour and place are drawn by a fixed seed, alike for all processes. `held_out` says of a
    test image whether nothing like it is in training.

    Args:
        source: the 5,000 embedded digits (`digits`), or MNIST, split 50,000/10,000/10,000 (`mnist`).
        plain: the digits as they are, grey 28 x 28, with captions of digit, thickness and slant alone.
        zero_shot: what training and validation never show: `combinations` of a digit and a colour (a sixth of them),
            `digits`, the four and the seven, or nothing.
        image_size: side of the images in pixels; a digit's own square takes five eighths of it. 28 if plain.
        root: folder of MNIST; the environment variable LIGHTNING_GEN_DATA if None, else `./data`.
        batch_size: images a batch, on each rank.
        num_workers: processes that load; 0 is the fastest.
        download: fetch MNIST if it is missing.
        classes: keep only these digits.

    Raises:
        DataError: if the image is too small for a digit, or plain digits are to have another size or colours kept.
    """

    def __init__(
        self,
        source: Literal["digits", "mnist"] = "digits",
        plain: bool = False,
        zero_shot: Literal["combinations", "digits"] | None = "combinations",
        image_size: Size = 32,
        root: str | None = None,
        batch_size: Size = 64,
        num_workers: Count = 0,
        download: bool = False,
        classes: list[int] | None = None,
    ) -> None:
        super().__init__(root, batch_size, num_workers, download, classes)
        if image_size < 16:
            raise DataError(f"image_size is {image_size}; expected at least 16 pixels.")
        if plain and zero_shot == "combinations":
            raise DataError("Plain digits have no colours to keep for the test; give zero_shot=digits or null.")
        self.plain = plain
        self.zero_shot = zero_shot
        self.image_size = 28 if plain else image_size
        self.digits: ImageDataModule = (
            DigitsDataModule(classes=classes)
            if source == "digits"
            else MNISTDataModule(root, download=download, classes=classes)
        )

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (1 if self.plain else 3, self.image_size, self.image_size)

    @property
    def num_classes(self) -> int:
        return 10

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """What the columns of `attributes` are."""
        return tuple(ATTRIBUTES)[: 3 if self.plain else 5]

    @property
    def attribute_sizes(self) -> tuple[int, ...]:
        """How many values each attribute has."""
        return tuple(len(ATTRIBUTES[name]) for name in self.attribute_names)

    @property
    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"label": (), "attributes": (len(self.attribute_names),)}

    def prepare_data(self) -> None:
        """Download MNIST if it is missing and asked for; Lightning calls this in one process."""
        self.digits.prepare_data()

    def load(self) -> dict[Split, Dataset[Batch]]:
        self.digits.setup()
        splits: dict[Split, Columns] = {}
        for split, dataset in self.digits.datasets.items():
            columns: Any = dataset.columns  # type: ignore[attr-defined]
            splits[split] = self.captioned(columns["image"].squeeze(1), columns["label"], split)
        return self.in_memory(splits)

    def captioned(self, digits: Tensor, labels: Tensor, split: Split) -> Columns:
        """All columns of a split, by a generator of its own: digits as bytes `(N, 28, 28)`, labels `(N,)`."""
        generator = torch.Generator().manual_seed(HELD_OUT_SEED)
        measured = torch.cat([measure(part.float() / 255) for part in digits.split(5000)])
        attributes = torch.cat([labels[:, None], measured], 1)
        held_out = torch.zeros(len(labels), dtype=torch.bool)
        images = digits[:, None]
        if not self.plain:
            colours = torch.randint(len(COLOURS), labels.shape, generator=generator)
            if self.zero_shot == "combinations" and split != "test":  # Another of the five that are left.
                others = torch.randint(1, len(COLOURS), labels.shape, generator=generator)
                colours = torch.where(is_held_out(labels, colours), (colours + others) % len(COLOURS), colours)
            positions = torch.randint(3, labels.shape, generator=generator)
            attributes = torch.cat([attributes, colours[:, None], positions[:, None]], 1)
            images = self.drawn(digits, colours, positions, generator)
            held_out = is_held_out(labels, colours) & (self.zero_shot == "combinations")
        if self.zero_shot == "digits":
            held_out = (labels == 4) | (labels == 7)
        columns: Columns = {
            "image": images,
            "label": labels,
            "attributes": attributes,
            "held_out": held_out,
            "caption": self.describe(attributes),
        }
        return columns if split == "test" else take(columns, (~held_out).nonzero().squeeze(1))

    def describe(self, attributes: Tensor) -> list[list[str]]:
        """The ten captions of each image with these attributes, `(N, A)`; the same row has the same synonyms."""
        return write_captions(attributes, self.attribute_names, PLAIN_FORMS if self.plain else FORMS)

    def drawn(self, digits: Tensor, colours: Tensor, positions: Tensor, generator: torch.Generator) -> Tensor:
        """Digits in their colours at their places on black, bytes `(N, 3, S, S)`; places vary by a sixteenth."""
        size = self.image_size
        side = 5 * size // 8
        small = torch.cat(
            [
                F.interpolate(part[:, None].float() / 255, (side, side), mode="bilinear", antialias=True)
                for part in digits.split(5000)
            ]
        )
        jitter = size // 16
        shift = torch.randint(jitter + 1, (2, len(digits)), generator=generator)
        spare = size - side - jitter
        lefts = (spare * positions) // 2 + shift[0]
        tops = spare // 2 + shift[1]
        ink = torch.zeros(len(digits), size, size)
        rows, steps = torch.arange(len(digits))[:, None, None], torch.arange(side)
        ink[rows, tops[:, None, None] + steps[:, None], lefts[:, None, None] + steps] = small.squeeze(1)
        tints = torch.tensor(list(COLOURS.values()))[colours]
        return (ink[:, None] * tints[:, :, None, None]).mul(255).round().byte()
