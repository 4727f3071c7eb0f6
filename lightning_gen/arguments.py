"""What constructors are given: the words for bounds in their signatures, and the check of arguments against them.

    class GAN(AdversarialModule):
        def __init__(self, latent_dim: Size = 100, dropout: Share = 0.5) -> None:
            super().__init__()
            self.save_hyperparameters()  # Here; callbacks and metrics call check_arguments themselves.

Each constructor of this package answers for what stands in its own signature, and for nothing else: a subclass in
another project may take what it likes.
"""

from __future__ import annotations

import inspect
import math
import operator
import os
import types
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import cache
from numbers import Integral, Real
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Len, Lt
from torch import Tensor

from lightning_gen.errors import DataError

Size: TypeAlias = Annotated[int, Ge(1)]
"""Of units, pixels, images, steps: at least 1."""

Sides: TypeAlias = Size | tuple[Size, Size]
"""Of pictures, in pixels: one for squares, or height and width."""

Several: TypeAlias = Annotated[int, Ge(2)]

Count: TypeAlias = Annotated[int, Ge(0)]
"""A number of what there may be none of."""

Share: TypeAlias = Annotated[float, Ge(0), Le(1)]
"""From none, 0, to all, 1."""

Decay: TypeAlias = Annotated[float, Ge(0), Lt(1)]
"""Weight of the past in a running average."""

Positive: TypeAlias = Annotated[float, Gt(0)]

NonNegative: TypeAlias = Annotated[float, Ge(0)]

ImageShape: TypeAlias = Annotated[tuple[Size, ...], Len(3, 3), "(channels, height, width)"]
"""Text among the bounds says them in an error."""

VideoShape: TypeAlias = Annotated[tuple[Size, ...], Len(4, 4), "(channels, frames, height, width)"]

BOUNDS: dict[type, tuple[str, Callable[[Any, Any], bool]]] = {
    Ge: (">=", operator.ge),
    Gt: (">", operator.gt),
    Le: ("<=", operator.le),
    Lt: ("<", operator.lt),
}


# The check ------------------------------------------------------------------------------------------------------


def check_arguments(constructor: Callable[..., None], given: Mapping[str, Any]) -> None:
    """Refuse arguments of a constructor that do not fit their annotations.

    Args:
        constructor: an `__init__`.
        given: its `locals()`, before it has set any of its own.

    Raises:
        DataError: if a value is of another type, not finite, or out of its bounds.
    """
    check_types(type(given["self"]).__name__, annotations_of(constructor), given)


def check_constructors(made: object, frame: types.FrameType | None) -> set[str]:
    """Check the arguments of every constructor of this package that is making an object just now.

    Args:
        made: the object.
        frame: of the constructor that has called; those of its subclasses are around it, as Lightning also finds them.

    Returns:
        The names of all that the outermost constructor was given, by itself or in `**kwargs`: what makes it again.
    """
    names: set[str] = set()
    while frame is not None and frame.f_code.co_name == "__init__":
        arguments, several, keywords, given = inspect.getargvalues(frame)
        if given.get(arguments[0]) is not made:
            break
        if "__class__" in given and given["__class__"].__module__.partition(".")[0] == __package__:
            check_arguments(given["__class__"].__init__, given)
        outer = {*arguments[1:], *given.get(keywords or "", ())}
        names = names | outer if given.get(several or "") else outer  # What is in *args has its name further in.
        frame = frame.f_back
    return names


@cache
def annotations_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of a function's parameters, with their bounds."""
    return get_type_hints(function, include_extras=True)


def check_types(name: str, kinds: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse values of other types than annotated, or out of bounds."""
    for key, kind in kinds.items():
        if key in given and not fits(given[key], kind):
            raise DataError(f"{name} got {key}={described(given[key])}; expected {readable(kind)}.")


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type; numbers must be finite, and a path may stand for a string."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return fits(value, inner[0]) and all(is_within(value, bound) for bound in inner[1:])
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return any(fits(value, type(one)) and value == one for one in inner)
    if kind is float:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if kind is str:
        return isinstance(value, (str, os.PathLike))
    if kind in (Any, None, types.NoneType):
        return kind is Any or value is None
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if origin is tuple and Ellipsis not in inner:
        return is_row(value) and len(value) == len(inner) and all(map(fits, value, inner))
    if origin in (tuple, list, Sequence):
        return is_row(value) and all(fits(one, inner[0]) for one in value)
    if inspect.isclass(origin or kind) and not getattr(kind, "_is_protocol", False):
        return isinstance(value, origin or kind)
    return True


def is_within(value: Any, bound: Any) -> bool:
    """Whether a value keeps a bound of its annotation."""
    if isinstance(bound, Len):
        return bound.min_length <= len(value) <= (bound.max_length or math.inf)
    return type(bound) not in BOUNDS or BOUNDS[type(bound)][1](value, limit_of(bound))


def limit_of(bound: Any) -> Any:
    """The number of a bound: `Ge(1)` keeps it as `ge`."""
    return getattr(bound, type(bound).__name__.lower())


def is_row(value: Any) -> bool:
    """Whether a value is a list or a tuple, or anything like them but text."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


# Words for it ---------------------------------------------------------------------------------------------------


def readable(kind: Any) -> str:
    """A type with its bounds as it would be said, choices as they are typed."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        words = [bound for bound in inner[1:] if isinstance(bound, str)]
        limits = " and ".join(
            f"{BOUNDS[type(bound)][0]} {limit_of(bound)}" for bound in inner[1:] if type(bound) in BOUNDS
        )
        return words[0] if words else f"{readable(inner[0])} {limits}"
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (Union, types.UnionType):
        return " or ".join(map(readable, inner))
    if kind in (None, types.NoneType, Ellipsis):
        return "..." if kind is Ellipsis else "None"
    name = getattr(origin or kind, "__name__", str(kind))
    return f"{name}[{', '.join(map(readable, inner))}]" if inner else name


def described(value: Any) -> str:
    """A value in a message: a tensor by its shape and type, all else as it would be typed, cut short."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_memory(name: str, numbers: int, given: Mapping[str, Any]) -> None:
    """Refuse what would give more 32-bit numbers than the machine's memory holds."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf
    if 4 * numbers > memory:
        told = ", ".join(f"{key}={described(value)}" for key, value in given.items())
        raise DataError(
            f"{name} with {told} would take {4 * numbers / 2**30:,.0f} GiB, and this machine has "
            f"{memory / 2**30:,.0f}; ask for less at a time."
        )


# What a checkpoint keeps ----------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """A value as Python's own types, which any reader of a checkpoint takes: no NumPy, no path, no configuration."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, (bool, bytes, Tensor)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(one) for key, one in value.items()}
    if is_row(value):
        return (tuple if isinstance(value, tuple) else list)(map(plain, value))
    return plain(value.tolist()) if hasattr(value, "tolist") else value  # Arrays, and NumPy's booleans.


def class_path(made: object) -> str:
    """Where an object's class is found again."""
    return f"{type(made).__module__}.{type(made).__qualname__}"
