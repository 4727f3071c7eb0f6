"""The page of `lightning-gen compare`, section by section."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from string import ascii_uppercase

from lightning_gen import __version__
from lightning_gen.callbacks.base import Figure
from lightning_gen.commands.comparison import (
    DIFFER,
    OUTCOME,
    WARNING,
    Entry,
    is_memorised,
    method,
    number,
    read_published,
    rows_of_answers,
    rows_of_figures,
    what_differs,
)
from lightning_gen.commands.page import COLOURS, Line, chart, fill, table
from lightning_gen.commands.runs import read_curves


def make_page(entries: Sequence[Entry], num_samples: int, seed: int) -> str:
    """All of the comparison as HTML."""
    sections = [
        f'<div class="runs">{"".join(map(card, entries))}</div>',
        figures_section(entries),
        published_section(entries),
        study_section(entries),
        curves_section(entries),
        settings_section(entries),
    ]
    title = "One run" if len(entries) == 1 else f"{len(entries)} runs side by side"
    subtitle = f"{num_samples} samples of each, seed {seed}. Made by lightning_gen {__version__}."
    return fill("compare.html", title=title, subtitle=escape(subtitle), body="\n".join(filter(None, sections)))


def colour(entry: Entry) -> int:
    """The number of a run's colour."""
    return ascii_uppercase.index(entry.letter) % COLOURS


def badge(entry: Entry) -> str:
    """A run's letter in its colour."""
    return f'<span class="letter" style="--colour: var(--c{colour(entry)})">{entry.letter}</span>'


def breakable(name: str) -> str:
    """A name that a narrow column may break after a stroke or a dot."""
    return re.sub(r"([/_.])", r"\1<wbr>", escape(name))


def mark(text: str) -> str:
    """Words that stand out."""
    return f'<span class="mark">{escape(text)}</span>'


def card(entry: Entry) -> str:
    """What a run is, and its samples."""
    run = entry.run
    facts = [f"{run.model} on {run.data}"]
    if run.checkpoint is not None:
        facts.append(f"{run.settings['epochs']} epochs")
        facts.append(f"{entry.weights:,} weights, {run.checkpoint.name}")
    warning = f"<p>{mark(WARNING)}</p>" if any(map(is_memorised, run.figures.values())) else ""
    picture = f'<img src="{entry.samples}" alt="Samples of {escape(run.name)}">' if entry.samples else ""
    notes = "".join(f"<p><small>{escape(note)}</small></p>" for note in entry.notes)
    return (
        f'<article class="run" style="--colour: var(--c{colour(entry)})"><h2>{badge(entry)}{escape(run.name)}</h2>'
        f"<p>{escape(', '.join(facts))}</p>{warning}{picture}{notes}</article>"
    )


def figures_section(entries: Sequence[Entry]) -> str:
    """Every figure of every run, with its protocol."""
    data = {entry.letter: entry.run.data for entry in entries}
    rows = []
    for name, row in rows_of_figures(entries).items():
        differing = what_differs(row, data)
        reason = f"{DIFFER} {' and '.join(differing)}"
        cells = [breakable(name) + (f"<br>{mark(reason)}" if differing else "")]
        for letter in data:
            figure = row.get(letter)
            cells.append("–" if figure is None else figure_cell(figure, data[letter] if differing else ""))
        same = "" if differing else method(next(iter(row.values())))
        rows.append([*cells, f"<small>{escape(same) or 'differs, see each'}</small>"])
    if not rows:
        return ""
    text = (
        f"Numbers in a row are comparable only if they were computed in the same way on the same images; "
        f"{mark(DIFFER)} says where they were not. Real: as many real training images in the place of the samples."
    )
    head = ["figure", *map(badge, entries), "protocol"]
    return f'<h2>Figures</h2><p class="quiet">{text}</p>{table(head, rows)}'


def figure_cell(figure: Figure, data: str) -> str:
    """A figure with the value of real images, what its protocol says of the outcome, and, if asked for, all of it."""
    small = [] if figure.real is None else [f"real {figure.real:.4g}"]
    if data:
        small.append(f"{figure.protocol}; {data}")
    else:
        small += [found.strip(" ,:()") for found in OUTCOME.findall(figure.protocol)]
    warning = f" {mark(WARNING)}" if is_memorised(figure) else ""
    text = "".join(f"<small>{escape(line)}</small>" for line in small)
    return f'<span class="number">{number(figure.value, figure.standard_error)}</span>{warning}{text}'


def published_section(entries: Sequence[Entry]) -> str:
    """What papers report of these models, with what the runs on the same data reached."""
    published = read_published()
    rows = []
    for model in dict.fromkeys(entry.run.model for entry in entries):
        for paper in published.get(model, []):
            here = []
            for entry in (entry for entry in entries if entry.run.model == model):
                if entry.run.settings.get("data") != paper["data"]:
                    here.append(f"{badge(entry)}<small>other data: {escape(entry.run.data)}</small>")
                    continue
                for stage in ("test", "val"):
                    if figure := entry.run.figures.get(f"{stage}/{paper['figure']}"):
                        value = number(figure.value, figure.standard_error)
                        how = escape(f"{stage}, {figure.protocol}; {entry.run.data}")
                        here.append(f"{badge(entry)}{value}<small>{how}</small>")
            name = escape(f"{model}, {paper['setting']}" if paper["setting"] else model)
            value = number(paper["value"], paper.get("plus_minus"))
            source = f"<small>{escape(paper['protocol'])}</small><small>{escape(paper['source'])}</small>"
            rows.append([name, escape(paper["figure"]), escape(paper["data"]), value + source, "".join(here) or "–"])
    if not rows:
        return ""
    text = (
        "Test figures that papers print of these models, nats as negative log-likelihoods (nll). They stand beside "
        "figures of runs on the same data; read both protocols before comparing."
    )
    return (
        f'<h2>Published</h2><p class="quiet">{text}</p>'
        f"{table(['model', 'figure', 'data', 'published', 'these runs'], rows)}"
    )


def study_section(entries: Sequence[Entry]) -> str:
    """How often people took images for real, by the time that they saw them."""
    if not (rows := rows_of_answers(entries)):
        return ""
    lines, texts = [], []
    for entry in entries:
        if entry.study is None:
            continue
        for kind, label in ((False, entry.letter), (True, f"{entry.letter}*")):
            points = [(float(j.milliseconds), j.share) for j in entry.study.judged if j.real == kind]
            lines.append((label, colour(entry), points, kind))
        late = f", {entry.study.late} answers left out as the page was slow" if entry.study.late else ""
        people = "1 sitting" if entry.study.people == 1 else f"{entry.study.people} sittings"
        texts.append(f"{badge(entry)}{people}, real images: {escape(entry.study.real)}{late}.")
    times = sorted({x for *_, points, _ in lines for x, _ in points})
    place = {time: float(index) for index, time in enumerate(times)}  # Evenly: they grow by factors.
    drawn = [
        Line(label, number_, [(place[x], y) for x, y in points], dashed)
        for label, number_, points, dashed in lines
        if points
    ]
    names = {x: f"{time:g}" for time, x in place.items()}
    picture = chart("Share taken for real (* real images)", drawn, "milliseconds", names, y_range=(0, 1))
    badges = {entry.letter: badge(entry) for entry in entries}
    cells = [(time, badges[letter], *rest) for time, letter, *rest in rows]
    head = ["time", "run", "generated, taken for real", "real, taken for real", "answers"]
    text = "With the standard error of a share; answers of one person are not independent."
    return (
        f'<h2>Real or generated?</h2><p>{" ".join(texts)}</p><p class="quiet">{text}</p>'
        f'<div class="charts">{picture}</div>{table(head, cells)}'
    )


def curves_section(entries: Sequence[Entry]) -> str:
    """What the runs have logged while they were trained, one drawing for each name."""
    curves = {entry.letter: read_curves(entry.run.folder) for entry in entries}
    groups: dict[tuple[str, str], list[Line]] = {}  # Curves on different data do not belong into one drawing.
    for entry in entries:
        for name, points in curves[entry.letter].items():
            line = Line(entry.letter, colour(entry), points.tolist())
            groups.setdefault((name, entry.run.data), []).append(line)
    several = len({data for _, data in groups}) > 1
    charts = [
        chart(f"{name}, {data}" if several else name, lines, "epochs")
        for (name, data), lines in sorted(groups.items(), key=lambda item: (item[0][0][:4] != "val/", *item[0]))
        if len({y for line in lines for _, y in line.points}) > 1  # A phase that never changes is none to look at.
    ]
    missing = [badge(entry) for entry in entries if not curves[entry.letter]]
    text = f"<p>No TensorBoard events, so no curves: {' '.join(missing)}</p>" if missing else ""
    drawings = f'<div class="charts">{"".join(charts)}</div>' if charts else ""
    return f"<h2>Curves</h2>{text}{drawings}"


def settings_section(entries: Sequence[Entry]) -> str:
    """The settings that differ, open where all runs are of one model, and those that agree."""
    known = [entry for entry in entries if entry.run.settings]
    rows: dict[str, list[list[str]]] = {"Settings that differ": [], "Settings that agree": []}
    for name in dict.fromkeys(name for entry in known for name in entry.run.settings):
        values = [str(entry.run.settings.get(name, "–")) for entry in known]
        title = "Settings that differ" if len(set(values)) > 1 else "Settings that agree"
        rows[title].append([breakable(name), *map(escape, values)])
    opened = " open" if len({entry.run.model for entry in known}) == 1 else ""
    return "".join(
        f"<details{opened}><summary>{title}</summary>{table(['setting', *map(badge, known)], lines)}</details>"
        for title, lines in rows.items()
        if lines
    )
