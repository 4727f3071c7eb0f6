"""How the command line reads its options: recipes by name, errors in one line, the nearest option named."""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from docstring_parser import parse
from jsonargparse import ActionConfigFile, ArgumentParser

from lightning_gen._jsonargparse import misses_recipe, one_line, option_strings, refused_argument, unrecognized_option
from lightning_gen.errors import LightningGenError, did_you_mean
from lightning_gen.recipes import resolve_recipe

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)


class RecipeAction(ActionConfigFile):
    """`--config` that takes a recipe's name as well as a path."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        super().__call__(parser, cfg, resolve_recipe(values), option_string)  # type: ignore[no-untyped-call]


class OneLineErrors(ArgumentParser):
    """A parser whose errors are one line, with the nearest option where one is misspelt."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # Inside jsonargparse, which tries one type after the other.
            super().error(message, ex)
        raise LightningGenError(one_line(message) + self._suggestion(message)) from ex

    def _suggestion(self, message: str) -> str:
        """What a misspelt option was meant to be, if the message is about one."""
        if misses_recipe(message):
            return "; give a recipe, --config vae/digits (lightning-gen list shows all), or both --model and --data."
        if (option := unrecognized_option(message)) is not None:
            known = [known[2:] for known in option_strings(self) if known.startswith("--")]
            head, dot, rest = option.partition(".")
            heads = {option.partition(".")[0] for option in known}
            if dot and head not in heads:
                return did_you_mean(head, heads, "--{}." + rest)
            return did_you_mean(option, known, "--{}")
        if (refused := refused_argument(message)) is not None:
            module, _, name = refused.class_path.rpartition(".")
            return did_you_mean(refused.name, inspect.signature(getattr(sys.modules[module], name)).parameters)
        return ""


def own_error(error: Exception) -> Exception:
    """The error of a constructor that jsonargparse has wrapped in its own; those that are its alone, in one line."""
    cause: BaseException | None = error
    while cause is not None:
        *_, (frame, _) = traceback.walk_tb(cause.__traceback__)
        if not frame.f_globals["__name__"].startswith("jsonargparse."):
            return cause if isinstance(cause, Exception) else error
        cause = cause.__cause__
    return LightningGenError(one_line(str(error)))


def run_function(name: str, function: Callable[..., None], options: list[str]) -> None:
    """Call a function with arguments from the command line, which its signature and docstring describe.

    Positional-only parameters, and those with a star, are typed without a name; all others are options.
    A list whose default is none, or None, may be given as one, or element by element, its name before each.
    """
    lists = "|".join(
        argument.name
        for argument in inspect.signature(function).parameters.values()
        if str(argument.annotation).startswith("list[") and argument.default in (argument.empty, None)
    )
    if lists:
        options = [re.sub(rf"^--({lists})(?=$|=)", r"--\1+", option) for option in options]  # To jsonargparse: append.
    parser = OneLineErrors(prog=f"lightning-gen {name}", allow_abbrev=False)
    described = {text.arg_name.lstrip("*"): text.description for text in parse(function.__doc__ or "").params}
    kinds = {parameter.name: parameter.kind for parameter in inspect.signature(function).parameters.values()}
    single, several = ([key for key in kinds if kinds[key] == kind] for kind in POSITIONAL)
    for key in single:
        parser.add_argument(key, type=str, metavar=key.upper(), help=described.get(key))
    for key in several:
        parser.add_argument(key, type=str, metavar=key.upper(), nargs="+", help=described.get(key))
    parser.add_function_arguments(function, as_group=False, skip={*single, *several})
    found: Exception | None = None
    try:
        given = dict(parser.instantiate(parser.parse_args(options)))
    except ValueError as error:  # Of jsonargparse, where a class or None was expected and the class raised.
        found = own_error(error)
    if found is not None:  # Raised here, it has no context that is not its own.
        raise found
    if not -(2**63) <= given.get("seed", 0) < 2**63:
        raise LightningGenError(f"--seed is {given['seed']}; expected a whole number of 64 bits.")
    positional = [given.pop(key) for key in single] + [value for key in several for value in given.pop(key)]
    function(*positional, **given)
