"""What public functions and constructors are given, checked against their own signatures and docstrings.

One rule for all: a value is of its annotation's type, a number is finite, a setting is not negative and a size at least
1, and tensors have the shapes that the docstring states. Whatever else goes wrong inside is said in one line, too.
"""

from __future__ import annotations

import inspect
import math
import os
import re
import types
from abc import ABCMeta
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from numbers import Integral, Real
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from lightning_gen.errors import DataError, LightningGenError

P = ParamSpec("P")
R = TypeVar("R")
SIZE = re.compile(r"(^|_)(?<!val_)(size|sizes|dim|channels|units|pieces|shape)$|^every_n_")
STATED = re.compile(r"^    +(\w+):(?:(?!\n +\w+:)[^`])*?`\(([^`]*)\)`", re.MULTILINE)
SIGNED = ("seed", "classes", "labels")  # Labels are checked against the data.
REFUSED = (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError, AttributeError, MemoryError)


class Refused(DataError):
    """What was given went wrong inside, where nothing checks it."""


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type; numbers must be finite, and a path may stand for a string."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if kind is float:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if kind is str:
        return isinstance(value, (str, os.PathLike))
    if kind in (Any, None, types.NoneType):
        return kind is Any or value is None
    if origin is tuple and Ellipsis not in inner:
        return is_row(value) and len(value) == len(inner) and all(map(fits, value, inner))
    if origin in (tuple, list, Sequence):
        return is_row(value) and all(fits(one, inner[0]) for one in value)
    if inspect.isclass(origin or kind) and not getattr(kind, "_is_protocol", False):
        return isinstance(value, origin or kind)
    return True


def is_row(value: Any) -> bool:
    """Whether a value is a list or a tuple, or anything like them but text."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def numbers_in(value: Any) -> Iterator[float]:
    """The numbers of a value, however deep in lists."""
    for one in value if is_row(value) else ():
        yield from numbers_in(one)
    if isinstance(value, Real) and not isinstance(value, bool):
        yield float(value)


def described(value: Any) -> str:
    """A value in a message: a tensor by its shape and type, all else as it would be typed, cut short."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def named(given: Mapping[str, Any]) -> str:
    """Arguments in a message."""
    return ", ".join(f"{name}={described(value)}" for name, value in given.items())


@cache
def expectations(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Any], dict[str, list[str]]]:
    """A function's signature, its arguments' types, and the shapes that its docstring states."""
    try:
        kinds = get_type_hints(function)
    except NameError:  # A name that is imported for type checkers alone.
        kinds = {}
    stated = {name: re.split(r",\s*", shape.rstrip(",")) for name, shape in STATED.findall(function.__doc__ or "")}
    return inspect.signature(function), kinds, stated


def check_types(name: str, kinds: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse values of other types than annotated."""
    for key, value in given.items():
        if not fits(value, kinds.get(key, Any)):
            raise DataError(f"{name} got {key}={described(value)}; expected {readable(kinds[key])}.")


def check_settings(name: str, kinds: Mapping[str, Any], given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse settings of a constructor that are negative, sizes of 0, and shapes of another length."""
    for key, value in given.items():
        is_size = SIZE.search(key) and 0 not in numbers_in(defaults.get(key)) and not isinstance(value, float)
        least = 1 if is_size else 0
        if key not in SIGNED and any(number < least for number in numbers_in(value)):
            raise DataError(f"{name} got {key}={described(value)}; expected no number below {least}.")
        form = {"image_shape": "(channels, height, width)", "video_shape": "(channels, frames, height, width)"}.get(key)
        if form is None or kinds[key] != tuple[int, ...]:
            continue
        if len(value) not in (form.count(",") + 1, len(list(numbers_in(defaults.get(key))))):
            raise DataError(f"{name} got {key}={described(value)}; expected {form}.")


def readable(kind: Any) -> str:
    """A type as it stands in a signature, choices as they are typed."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    return kind.__name__ if inspect.isclass(kind) and not get_args(kind) else str(kind).replace("typing.", "")


def check_shapes(name: str, stated: Mapping[str, list[str]], given: Mapping[str, Any]) -> None:
    """Refuse tensors of other shapes than stated; the same letter is the same size everywhere."""
    sizes: dict[str, int] = {}
    for key, letters in stated.items():
        value: Any = given.get(key)
        if not hasattr(value, "shape") or not all(re.fullmatch(r"\w+|\.\.\.", letter) for letter in letters):
            continue
        shape, form = tuple(value.shape), [letter for letter in letters if letter != "..."]
        fitting = len(shape) >= len(form) if "..." in letters else len(shape) == len(form)
        if fitting:
            known = form if letters[-1] == "..." or "..." not in letters else form[::-1]
            for letter, size in zip(known, shape if known is form else shape[::-1], strict=False):
                expected = int(letter) if letter.isdigit() else sizes.setdefault(letter, size)
                fitting = fitting and expected == size
        if not fitting:
            known_sizes = "".join(f", {letter}={size}" for letter, size in sizes.items() if letter in letters)
            raise DataError(f"{name} got {key} of shape {shape}; expected ({', '.join(letters)}){known_sizes}.")


def check_memory(name: str, numbers: int, given: Mapping[str, Any]) -> None:
    """Refuse what would give more 32-bit numbers than the machine's memory holds."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf
    if 4 * numbers > memory:
        raise DataError(
            f"{name} with {named(given)} would take {4 * numbers / 2**30:,.0f} GiB, and this machine has "
            f"{memory / 2**30:,.0f}; ask for less at a time."
        )


@contextmanager
def refusing(name: str, given: Mapping[str, Any], kind: type[LightningGenError] = Refused) -> Iterator[None]:
    """Say in one line what a function was given when it fails for a reason of its own, or of PyTorch's."""
    try:
        yield
    except LightningGenError:
        raise
    except REFUSED as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise kind(f"{name} cannot take {named(given) or 'nothing'}: {reason}") from error


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The function with its arguments checked."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        signature, kinds, stated = expectations(function)
        given = signature.bind(*args, **kwargs).arguments
        check_types(function.__name__, kinds, given)
        check_shapes(function.__name__, stated, given)
        if empty := [key for key, value in given.items() if hasattr(value, "numel") and not value.numel()]:
            raise DataError(
                f"{function.__name__} got {empty[0]}={described(given[empty[0]])}; expected at least one number."
            )
        with refusing(function.__name__, given):
            return function(*args, **kwargs)

    return call


class Checked(ABCMeta):
    """Of classes whose constructors' arguments are checked."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        signature, kinds, _ = expectations(cls.__init__)  # type: ignore[misc]
        given = signature.bind(None, *args, **kwargs).arguments
        given.pop(next(iter(given)))  # self
        defaults = {key: parameter.default for key, parameter in signature.parameters.items()}
        check_types(cls.__name__, kinds, given)
        try:
            with refusing(cls.__name__, given):
                made = ABCMeta.__call__(cls, *args, **kwargs)  # Not super(): Lightning looks for __class__ in callers.
        except Refused:  # A constructor's own words are better than ours, and ours than PyTorch's.
            check_settings(cls.__name__, kinds, given, defaults)
            raise
        check_settings(cls.__name__, kinds, given, defaults)
        return made

    @property
    def __signature__(cls) -> inspect.Signature:
        """The constructor's, as for any class: the method above would hide it."""
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        return signature.replace(parameters=list(signature.parameters.values())[1:])
