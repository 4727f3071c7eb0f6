"""Real digits in a colour and at a place, with captions that tell what is measured in them and what was given to them.

In the place of the birds and flowers of Reed et al. 2016, "Generative Adversarial Text to Image Synthesis".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from typing_extensions import Unpack

from lightning_gen.arguments import Count, NonNegative, Size
from lightning_gen.datamodules.base import HELD_OUT_SEED, Batch, Columns, ImageDataModule, Loading, Split, take
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


def measure_all(digits: Tensor) -> Tensor:
    """The same of bytes, `(N, 28, 28)`, some at a time."""
    return torch.cat([measure(part.float() / 255) for part in digits.split(5000)])


def is_held_out(digit: Tensor, colour: Tensor) -> Tensor:
    """Whether a digit in a colour is kept for the test: one of the six colours of each digit."""
    return digit % len(COLOURS) == colour


def write_captions(
    attributes: Tensor, names: tuple[str, ...], forms: tuple[str, ...], generator: torch.Generator | None = None
) -> list[list[str]]:
    """The captions of images, one in each form.

    Args:
        attributes: integers, `(N, len(names))`.
        names: which attributes they are.
        forms: with each of the names in braces.
        generator: draws the synonyms; the global one if None.
    """
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


class RedrawnDigits(Dataset[Batch]):
    """Captioned digits whose colours, places and captions are drawn anew at every access, by the global random stream.

    With `wrong_attributes` a row also brings `wrong_image`, a digit of the set of which one attribute is another one.

    Args:
        module: draws and describes them.
        digits: bytes, `(N, 28, 28)`.
        labels: `(N,)`.
        measured: bins of thickness and slant, `(N, 2)`.
        wrong_attributes: how often each attribute is the one that is another, in proportion; None for no wrong images.
    """

    def __init__(
        self,
        module: CaptionedDigitsDataModule,
        digits: Tensor,
        labels: Tensor,
        measured: Tensor,
        wrong_attributes: dict[str, float] | None,
    ) -> None:
        self.module = module
        self.digits = digits
        self.attributes = torch.cat([labels[:, None], measured], 1)
        names = self.module.attribute_names
        self.weights = None if wrong_attributes is None else [wrong_attributes.get(name, 0.0) for name in names]
        # Digits that look alike stand together: those of bin b are rows[starts[b] : starts[b] + counts[b]].
        bins = self.bin_of(self.attributes)
        self.rows, self.counts = bins.argsort(stable=True), bins.bincount(minlength=60)
        self.starts = self.counts.cumsum(0) - self.counts

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> Batch:
        return {key: values[0] for key, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch at once; the loader prefers it to `__getitem__`."""
        rows = torch.as_tensor(indices)
        labels = self.attributes[rows, 0]
        colours, positions = self.module.draw_looks(labels, keep_out=True)
        attributes = torch.cat([self.attributes[rows], colours[:, None], positions[:, None]], 1)
        batch: Batch = {
            "image": self.picture(rows, attributes),
            "label": labels,
            "attributes": attributes,
            "held_out": torch.zeros(len(rows), dtype=torch.bool),
            "caption": write_captions(attributes, self.module.attribute_names, FORMS),
        }
        if self.weights is not None:
            wrong = self.changed(attributes)
            bins = self.bin_of(wrong)
            drawn = self.rows[self.starts[bins] + (torch.rand(len(bins)) * self.counts[bins]).long()]
            batch["wrong_image"] = self.picture(drawn, wrong)
        return batch

    def picture(self, rows: Tensor, attributes: Tensor) -> Tensor:
        """Digits of these rows in colours and at places, `(N, 3, S, S)` in [0, 1]."""
        return self.module.drawn(self.digits[rows], attributes[:, 3], attributes[:, 4], None).float().div_(255)

    def bin_of(self, attributes: Tensor) -> Tensor:
        """Numbers from 0 to 59 of digit, thickness and slant."""
        return attributes[:, 0] * 6 + attributes[:, 1] * 2 + attributes[:, 2]

    def changed(self, attributes: Tensor) -> Tensor:
        """Attributes of which one is another, each that there are digits for and that training may show as likely."""
        changed = attributes.clone()
        chosen = torch.tensor(self.weights, dtype=torch.float64).multinomial(len(attributes), replacement=True)
        for column, size in enumerate(self.module.attribute_sizes):
            rows = (chosen == column).nonzero().squeeze(1)
            candidates = attributes[rows, None].repeat(1, size, 1)  # (R, size, 5)
            candidates[:, :, column] = torch.arange(size)
            flat = candidates.flatten(0, 1)
            fits = (self.counts[self.bin_of(flat)] > 0) & ~self.module.keeps_out(flat[:, 0], flat[:, 3])
            fits = fits.view(-1, size) & (torch.arange(size) != attributes[rows, column, None])
            # Where no digit fits (there may be no thick slanted one), it is another place.
            some = fits.any(1)
            if some.any():
                changed[rows[some], column] = fits[some].double().multinomial(1).squeeze(1)
            none = rows[~some]
            changed[none, 4] = (attributes[none, 4] + torch.randint(1, 3, none.shape)) % 3
        return changed


class CaptionedDigitsDataModule(ImageDataModule):
    """Real digits in one of six colours on the left, in the middle or on the right, with ten captions each.

    A batch holds `image`, `label` (the digit), `caption` (ten texts for each image), and `attributes`, integers
    `(N, 5)` in the order of `ATTRIBUTES`: digit, thickness, slant, colour, position. Thickness and slant are measured
    in the original digit; colour and place are drawn by a fixed seed, alike for all processes. `held_out` says of a
    test image whether nothing like it is in training.

    Args:
        source: the 5,000 embedded digits (`digits`), or MNIST, split 50,000/10,000/10,000 (`mnist`).
        own_size: draw digits at their own size, 22 x 22 pixels without their margin of 3; else shrunk.
        redraw: draw colours, places and captions of training images anew each time, as Reed et al. crop and mirror.
        wrong_attributes: with `redraw`, let training images bring a `wrong_image` of which one attribute is another
            one: how often each, in proportion, as in {digit: 2, colour: 1}; None for no such images.
        plain: the digits as they are, grey 28 x 28, with captions of digit, thickness and slant alone.
        zero_shot: what training and validation never show: `combinations` of a digit and a colour (a sixth of them),
            `digits`, the four and the seven, or nothing.
        image_size: side of the images in pixels; a digit's own square takes five eighths of it, unless it keeps its
            `own_size`. 28 if plain.
        root: folder of MNIST; the environment variable LIGHTNING_GEN_DATA if None, else `./data`.
        batch_size: images a batch, on each rank.
        num_workers: processes that load; 0 is the fastest.
        download: fetch MNIST if it is missing.
        classes: keep only these digits.
        loading: `drop_last` and `train_transform`, see `Loading`.

    Raises:
        DataError: if the image is too small for a digit, or plain digits are to have another size or colours kept.
    """

    def __init__(
        self,
        source: Literal["digits", "mnist"] = "digits",
        own_size: bool = False,
        redraw: bool = False,
        wrong_attributes: dict[str, NonNegative] | None = None,
        plain: bool = False,
        zero_shot: Literal["combinations", "digits"] | None = "combinations",
        image_size: Size = 32,
        root: str | None = None,
        batch_size: Size = 64,
        num_workers: Count = 0,
        download: bool = False,
        classes: list[int] | None = None,
        **loading: Unpack[Loading],
    ) -> None:
        super().__init__(root, batch_size, num_workers, download, classes, **loading)
        if image_size < (least := 28 if own_size else 16):
            raise DataError(f"image_size is {image_size}; expected at least {least} pixels.")
        if plain and (own_size or redraw or wrong_attributes):
            raise DataError("Plain digits are as they are; leave own_size, redraw and wrong_attributes out.")
        if wrong_attributes is not None:
            unknown = sorted(set(wrong_attributes) - set(ATTRIBUTES))
            if unknown or not redraw or sum(wrong_attributes.values()) <= 0:
                raise DataError(
                    f"wrong_attributes is {wrong_attributes} and redraw {redraw}; expected redraw=true and weights of "
                    f"some of {', '.join(ATTRIBUTES)}."
                )
        if plain and zero_shot == "combinations":
            raise DataError("Plain digits have no colours to keep for the test; give zero_shot=digits or null.")
        self.own_size = own_size
        self.redraw = redraw
        self.wrong_attributes = wrong_attributes
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

    @property
    def draws(self) -> bool:
        """Whether training images are drawn anew."""
        return self.redraw

    def load(self) -> dict[Split, Dataset[Batch]]:
        self.digits.setup()
        splits: dict[Split, Columns] = {}
        for split, dataset in self.digits.datasets.items():
            columns: Any = dataset.columns  # type: ignore[attr-defined]
            splits[split] = self.captioned(columns["image"].squeeze(1), columns["label"], split)
        datasets = self.in_memory(splits)
        if self.redraw:
            columns = self.digits.datasets["train"].columns  # type: ignore[attr-defined]
            if self.zero_shot == "digits":
                columns = take(columns, ((columns["label"] != 4) & (columns["label"] != 7)).nonzero().squeeze(1))
            digits = columns["image"].squeeze(1)
            datasets["train"] = RedrawnDigits(
                self, digits, columns["label"], measure_all(digits), self.wrong_attributes
            )
        return datasets

    def captioned(self, digits: Tensor, labels: Tensor, split: Split) -> Columns:
        """All columns of a split, by a generator of its own: digits as bytes `(N, 28, 28)`, labels `(N,)`."""
        generator = torch.Generator().manual_seed(HELD_OUT_SEED)
        attributes = torch.cat([labels[:, None], measure_all(digits)], 1)
        held_out = torch.zeros(len(labels), dtype=torch.bool)
        images = digits[:, None]
        if not self.plain:
            colours, positions = self.draw_looks(labels, keep_out=split != "test", generator=generator)
            attributes = torch.cat([attributes, colours[:, None], positions[:, None]], 1)
            images = self.drawn(digits, colours, positions, generator)
            held_out = self.keeps_out(labels, colours)
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

    def keeps_out(self, digit: Tensor, colour: Tensor) -> Tensor:
        """Which digits in which colours are kept for the test."""
        return is_held_out(digit, colour) & (self.zero_shot == "combinations")

    def draw_looks(
        self, labels: Tensor, keep_out: bool, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Colours and places of digits, `(N,)` each; without the combinations that are kept for the test, if asked."""
        colours = torch.randint(len(COLOURS), labels.shape, generator=generator)
        if self.zero_shot == "combinations" and keep_out:  # Another of the five that are left.
            others = torch.randint(1, len(COLOURS), labels.shape, generator=generator)
            colours = torch.where(is_held_out(labels, colours), (colours + others) % len(COLOURS), colours)
        return colours, torch.randint(3, labels.shape, generator=generator)

    def describe(self, attributes: Tensor) -> list[list[str]]:
        """The ten captions of each image with these attributes, `(N, A)`; the same row has the same synonyms."""
        generator = torch.Generator().manual_seed(HELD_OUT_SEED)
        return write_captions(attributes, self.attribute_names, PLAIN_FORMS if self.plain else FORMS, generator)

    def drawn(self, digits: Tensor, colours: Tensor, positions: Tensor, generator: torch.Generator | None) -> Tensor:
        """Digits in their colours at their places on black, bytes `(N, 3, S, S)`; places vary by a sixteenth."""
        size = self.image_size
        if self.own_size:
            small = digits[:, None, 3:-3, 3:-3].float() / 255
        else:
            side = 5 * size // 8
            small = torch.cat(
                [
                    F.interpolate(part[:, None].float() / 255, (side, side), mode="bilinear", antialias=True)
                    for part in digits.split(5000)
                ]
            )
        side = small.shape[-1]
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
