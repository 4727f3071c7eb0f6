"""Pages in one file, which open from disk and fetch nothing: a template, images as data, charts as drawings."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

PAGES = Path(__file__).parent / "pages"
COLOURS = 8  # --c0 to --c7 in style.css
WIDTH, HEIGHT = 360, 220  # Of a chart, in its own units: about a phone's width, so that letters keep their size.
LEFT, RIGHT, TOP, BOTTOM = 46, 340, 12, 190  # Of its axes.


def fill(template: str, **parts: str) -> str:
    """A page's text: its template, with the style of all pages and what belongs into it."""
    style = (PAGES / "style.css").read_text(encoding="utf-8")
    return Template((PAGES / template).read_text(encoding="utf-8")).substitute(style=style, **parts)


def image_source(image: Tensor) -> str:
    """An image `(C, H, W)` in [0, 1] as a PNG inside a link."""
    from torchvision.transforms.functional import to_pil_image

    file = io.BytesIO()
    to_pil_image(image.clamp(0, 1).mul(255).round().byte()).save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def file_source(path: Path) -> str:
    """A PNG file inside a link."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells of HTML as a table in a box of its own, which scrolls where the screen is narrow."""
    titles = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    lines = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for first, *cells in rows
    )
    return f'<div class="box" tabindex="0"><table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table></div>'


class Line(NamedTuple):
    """One line of a chart."""

    label: str  # a letter or two, at its end
    colour: int
    points: Sequence[tuple[float, float]]
    dashed: bool = False


def chart(
    title: str,
    lines: Sequence[Line],
    x_label: str,
    x_ticks: Mapping[float, str] | None = None,
    y_range: tuple[float, ...] = (),
) -> str:
    """Lines over one another, as a drawing in HTML; the horizontal axis begins at 0.

    Args:
        title: what is drawn.
        lines: at least one, each with at least one point.
        x_label: of the horizontal axis.
        x_ticks: its places, within the points', and their names; round numbers if None.
        y_range: what the vertical axis spans, besides the points.
    """
    xs, ys = zip(*(point for line in lines for point in line.points), strict=True)
    if x_ticks is None:
        x_ticks = {x: f"{x:g}" for x in round_numbers(min(0, *xs), max(xs)) if x <= max(xs)}
    spanned = (*y_range, *ys)
    y_ticks = round_numbers(min(spanned), max(spanned))
    x_low, x_high = min(0, *xs), max(xs)
    y_low, y_high = min(y_ticks), max(y_ticks)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / ((x_high - x_low) or 1)
        up = (y - y_low) / ((y_high - y_low) or 1)
        return round(LEFT + across * (RIGHT - LEFT), 1), round(BOTTOM - up * (BOTTOM - TOP), 1)

    parts = []
    for y in y_ticks:
        _, height = place(x_low, y)
        parts.append(f'<path class="grid" d="M{LEFT} {height}H{RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{height + 4}" text-anchor="end">{y:g}</text>')
    for x, name in x_ticks.items():
        parts.append(f'<text x="{place(x, y_low)[0]}" y="{BOTTOM + 15}" text-anchor="middle">{escape(name)}</text>')
    parts.append(f'<text x="{RIGHT}" y="{HEIGHT - 2}" text-anchor="end">{escape(x_label)}</text>')
    heights = spread([place(*line.points[-1])[1] for line in lines], 12)
    for line, height in zip(lines, heights, strict=True):
        path = " ".join(f"{x},{y}" for x, y in (place(*point) for point in line.points))
        colour = f"var(--c{line.colour % COLOURS})"
        dashes = ' stroke-dasharray="5 4"' if line.dashed else ""
        parts.append(f'<polyline points="{path}" stroke="{colour}"{dashes}/>')
        right = place(*line.points[-1])[0] + 4
        parts.append(f'<text class="end" x="{right}" y="{height + 4}" fill="{colour}">{escape(line.label)}</text>')
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawing}</figure>"


def round_numbers(low: float, high: float) -> list[float]:
    """Three to seven multiples of 1, 2 or 5 times a power of ten that span a range."""
    if high <= low:
        low, high = low - 1, low + 1
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if (high - low) / (power * factor) <= 4.5)
    return [round(index * step, 12) for index in range(math.floor(low / step), math.ceil(high / step) + 1)]


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Heights pushed apart downwards until no two are nearer than a gap, in the order given."""
    placed: dict[int, float] = {}
    previous = -math.inf
    for index in sorted(range(len(heights)), key=heights.__getitem__):
        previous = placed[index] = max(heights[index], previous + gap)
    return [placed[index] for index in range(len(heights))]
