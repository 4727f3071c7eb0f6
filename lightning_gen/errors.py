"""The errors that users meet: each message says what was given, what was expected and what to type next."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(given: str, known: Iterable[str], form: str = "{}") -> str:
    """`; did you mean X?` with the known word nearest to the given one, or nothing where none is near."""
    nearest = get_close_matches(given, list(known), n=1, cutoff=0.4)
    return f"; did you mean {form.format(nearest[0])}?" if nearest else ""


class LightningGenError(Exception):
    """Base of every error that this package raises for bad input; the command line prints it in one line."""


class DatasetNotFoundError(LightningGenError, FileNotFoundError):
    """The data are not where they were looked for."""


class DataError(LightningGenError, ValueError):
    """The data are there but wrong: shape, range, labels, a corrupt file."""


class ConditionError(LightningGenError, ValueError):
    """A condition is missing, has an unknown key, or a wrong size."""


class CheckpointError(LightningGenError):
    """A checkpoint cannot be read, or must not be trusted."""


class WeightsNotFoundError(LightningGenError, FileNotFoundError):
    """A network's weights are not at hand and cannot be fetched."""


class TrainingError(LightningGenError, RuntimeError):
    """Training cannot go on: a loss is not finite."""
