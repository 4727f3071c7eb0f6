"""A progress bar for what callbacks do between batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lightning_gen._lightning import Trainer, live_display


@contextmanager
def progress(trainer: Trainer, description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show one more bar in the trainer's rich display while the block runs; nothing where the trainer shows no such.

    Args:
        trainer: the trainer whose display is used: two live displays at a time are an error.
        description: what is being done.
        total: how many images there are, None if that is not known.

    Yields:
        A function to call with the number of images done since the last call.
    """
    display = live_display(trainer)
    if display is None:
        yield lambda number: None
        return
    task = display.add_task(description, total=float("inf") if total is None else total)
    try:
        yield lambda number: display.update(task, advance=number, refresh=True)
    finally:
        display.remove_task(task)
        display.refresh()
