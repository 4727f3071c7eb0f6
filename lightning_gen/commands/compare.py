"""`lightning-gen compare`: runs side by side, as a table here and as a page to open and to send."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase

from rich import get_console
from rich.table import Table

from lightning_gen.callbacks.files import image_grid
from lightning_gen.commands.compare_page import make_page
from lightning_gen.commands.comparison import (
    DIFFER,
    WARNING,
    Entry,
    is_memorised,
    method,
    number,
    rows_of_answers,
    rows_of_figures,
    what_differs,
)
from lightning_gen.commands.page import file_source, image_source
from lightning_gen.commands.pictures import Condition, Device, new_output
from lightning_gen.commands.runs import Run, find_run, load_run
from lightning_gen.commands.sample import draw
from lightning_gen.commands.study import Results, fingerprint, read_answers, summarize
from lightning_gen.errors import LightningGenError


def compare(
    *runs: str, output: str, study: str | None = None, num_samples: int = 64, seed: int = 0, device: Device = "auto"
) -> None:
    """Set runs side by side: samples, figures with their protocols, published ones, curves and settings.

    Prints a table and writes a page in one file, which opens in any browser, from disk too. Figures in one row are
    comparable if they were computed in the same way on the same images: where the protocols or the data differ, the
    row has the mark ≠ and each figure its own protocol. Figures of `test` are found in the folders beside the run's, in
    the same folder of logs.

    Args:
        *runs: folders of runs (logs/gan_digits/version_0, or logs/gan_digits if one model was trained there), or
            checkpoints.
        output: a .html.
        study: answers that people gave on a page of `lightning-gen study`, a file or a folder of them; those in a run's
            folder, study*.json, are found without it.
        num_samples: samples shown of each run.
        seed: of the samples, drawn as `lightning-gen sample` draws them.
        device: where to sample; auto takes the GPU if there is one.
    """
    if num_samples < 1:
        raise LightningGenError(f"num_samples is {num_samples}; expected at least 1.")
    if len(runs) > len(ascii_uppercase):
        raise LightningGenError(f"{len(runs)} runs were given; at most {len(ascii_uppercase)} have room side by side.")
    with new_output(output, (".html",)) as draft:
        found = [find_run(given) for given in runs]
        answers = read_studies(found, study)
        entries = [
            make_entry(letter, run, results, num_samples, seed, device)
            for letter, run, results in zip(ascii_uppercase, found, answers, strict=False)
        ]
        draft.write_text(make_page(entries, num_samples, seed), encoding="utf-8")
    show(entries)
    print(f"The same as a page, with samples and curves, in {output}")


def make_entry(letter: str, run: Run, study: Results | None, num_samples: int, seed: int, device: Device) -> Entry:
    """Sample a run's model; what cannot be sampled is noted, what cannot be loaded is an error."""
    notes = list(run.notes)
    if run.checkpoint is None:
        picture = run.pictures[-1] if run.pictures else None
        if picture is not None:  # As of a folder of images, beside their nearest training images.
            notes.append(f"The picture is {picture.parent.name}/{picture.name} of the run.")
        return Entry(letter, run, "" if picture is None else file_source(picture), 0, study, notes)
    model = load_run(run, device, seed)
    samples = ""
    try:
        if not model.can_sample:
            raise LightningGenError("its training has not come to the phase that draws images.")
        samples = image_source(image_grid(draw(model, num_samples, Condition()), num_columns=8))
    except LightningGenError as error:
        notes.append(f"No samples: {error}")
    return Entry(letter, run, samples, sum(weight.numel() for weight in model.parameters()), study, notes)


def read_studies(runs: Sequence[Run], given: str | None) -> list[Results | None]:
    """Each run's answers: the given ones that are of its checkpoint, and those in its folder.

    Raises:
        LightningGenError: if answers were given that are of no run's checkpoint.
    """
    paths = [] if given is None else sorted(Path(given).glob("*.json")) if Path(given).is_dir() else [Path(given)]
    if given is not None and not paths:
        raise LightningGenError(f"The folder {given} holds no *.json; a page of lightning-gen study saves such files.")
    files = [(path, read_answers(path)) for path in paths]
    results: list[Results | None] = []
    used: set[Path] = set()
    for run in runs:
        own = [(path, read_answers(path)) for path in sorted(run.folder.glob("study*.json"))]
        mark = fingerprint(run.checkpoint) if run.checkpoint is not None and (own or files) else None
        mine = [(path, content) for path, content in (*files, *own) if content["checkpoint"] == mark]
        used.update(path for path, _ in mine)
        run.notes.extend(
            f"{path.name} is of another checkpoint and left out."
            for path, content in own
            if content["checkpoint"] != mark
        )
        results.append(summarize([content for _, content in mine]) if mine else None)
    for path, content in files:
        if path not in used:
            raise LightningGenError(
                f"{path} has answers on another checkpoint, of {content.get('run', 'an unknown run')}; compare the "
                "checkpoint that lightning-gen study was given, or leave the file out."
            )
    return results


def show(entries: Sequence[Entry]) -> None:
    """Print the runs, their figures and the answers about them."""
    console = get_console()
    for entry in entries:
        title = f"{entry.letter}  {entry.run.name}: {entry.run.model} on {entry.run.data}"
        console.print(title, soft_wrap=True, markup=False, highlight=False)
        for note in entry.notes:
            console.print(f"   {note}", soft_wrap=True, markup=False, highlight=False)
    data = {entry.letter: entry.run.data for entry in entries}
    methods: dict[str, int] = {}  # How figures were computed, and on what, numbered as they come.
    figures = Table()
    figures.add_column("figure", no_wrap=True, overflow="fold")
    for letter in data:
        figures.add_column(letter, justify="right")
    for name, row in rows_of_figures(entries).items():
        cells = []
        for letter in data:
            if (figure := row.get(letter)) is None:
                cells.append("")
                continue
            how = f"{method(figure)}; {data[letter]}"
            lines = [number(figure.value, figure.standard_error), *([WARNING] if is_memorised(figure) else [])]
            lines += [] if figure.real is None else [f"real {figure.real:.4g}"]
            cells.append("\n".join([*lines, f"({methods.setdefault(how, len(methods) + 1)})"]))
        differing = what_differs(row, data)
        figures.add_row(name + (f"\n{DIFFER} {' and '.join(differing)}" if differing else ""), *cells)
    if figures.rows:
        console.print(figures)
    for how, index in methods.items():
        console.print(f"({index}) {how}", soft_wrap=True, markup=False, highlight=False)
    answers = Table("time", "run", "generated, taken for real", "real, taken for real", "answers")
    for line in rows_of_answers(entries):
        answers.add_row(*line)
    if answers.rows:
        console.print(answers)
