"""What `compare` sets side by side: entries, rows of figures, and why some of them are not to be compared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from lightning_gen.callbacks.base import Figure
from lightning_gen.commands.runs import UNKNOWN_DATA, Run
from lightning_gen.commands.study import Results
from lightning_gen.recipes import recipe_folder

DIFFER = "≠"
WARNING = "⚠ memorised"
MEMORISED = 0.5  # The share of samples that are nearly training images, over which a model is marked.
OUTCOME = re.compile(
    r"sigma [\d.e+-]+|, std [\d.e+-]+|, over [\d.]+: MEMORISED|, MMD\^2 [\d.e+-]+|\d+ of (?=\d+ pairs)| \([\d.e+-]+\)|"
    r", at least"
)
"""What a figure's protocol says of the outcome and not of the method: comparable runs may differ in it."""


class Entry(NamedTuple):
    """A run in the comparison."""

    letter: str
    run: Run
    samples: str  # a PNG in a link, or nothing
    weights: int
    study: Results | None
    notes: list[str]


def rows_of_figures(entries: Sequence[Entry]) -> dict[str, dict[str, Figure]]:
    """The figures by name and by the letter of the run: test before validation, else as the runs have them."""
    names = dict.fromkeys(name for entry in entries for name in entry.run.figures)
    ordered = sorted(names, key=lambda name: not name.startswith("test/"))
    return {name: {e.letter: e.run.figures[name] for e in entries if name in e.run.figures} for name in ordered}


def method(figure: Figure) -> str:
    """How a figure was computed: its protocol without what it says of the outcome."""
    return OUTCOME.sub(lambda found: "sigma" if found[0].startswith("sigma") else "", figure.protocol)


def what_differs(figures: Mapping[str, Figure], data: Mapping[str, str]) -> list[str]:
    """Why figures of one name are not to be compared: `protocols`, `data`, `unknown data`, or nothing."""
    of = {data[letter] for letter in figures}
    reasons = {
        "protocols": len(set(map(method, figures.values()))) > 1,
        "data": len(of - {UNKNOWN_DATA}) > 1,
        "unknown data": len(figures) > 1 and UNKNOWN_DATA in of,
    }
    return [name for name, holds in reasons.items() if holds]


def number(value: float, plus_minus: float | None) -> str:
    """A value with what it may be off by."""
    return f"{value:.4g}" + ("" if plus_minus is None else f" ± {plus_minus:.2g}")


def is_memorised(figure: Figure) -> bool:
    """Whether a figure says that samples are copies of training images."""
    return "memori" in figure.name and figure.value > MEMORISED


def read_published() -> dict[str, list[dict[str, Any]]]:
    """What papers report, by the class of the model."""
    return yaml.safe_load((recipe_folder() / "published.yaml").read_text(encoding="utf-8"))


def rows_of_answers(entries: Sequence[Entry]) -> list[tuple[str, str, str, str, str]]:
    """Of each time and run: the shares of generated and of real images taken for real, and the number of answers."""
    rows = []
    times = sorted({j.milliseconds for e in entries if e.study is not None for j in e.study.judged})
    for milliseconds in times:
        for entry in entries:
            judged = entry.study.judged if entry.study is not None else []
            kinds = {j.real: j for j in judged if j.milliseconds == milliseconds}
            if kinds:
                shares = (
                    f"{kinds[kind].share:.2f} ± {kinds[kind].standard_error:.2f}" if kind in kinds else ""
                    for kind in (False, True)
                )
                total = " + ".join(str(kinds[kind].number) for kind in (False, True) if kind in kinds)
                generated, real = shares
                rows.append((f"{milliseconds} ms", entry.letter, generated, real, total))
    return rows
