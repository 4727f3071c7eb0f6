"""The one place that knows what jsonargparse keeps to itself, and the words of its errors, which have no other form.

All of it was read in version 4.53; tests/test_cli.py types the mistakes that these messages are about.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple


class RefusedArgument(NamedTuple):
    """An argument that a class does not take."""

    class_path: str
    name: str


def subparsers(parser: Any) -> Iterable[Any]:
    """The parsers of a parser's subcommands: argparse lists its actions, but names their parsers nowhere in public."""
    for action in parser._actions:
        yield from getattr(action, "_name_parser_map", {}).values()


def option_strings(parser: Any) -> Iterable[str]:
    """The options of a parser and of its subcommands, as they are typed."""
    for action in parser._actions:
        yield from action.option_strings
    for subparser in subparsers(parser):
        yield from option_strings(subparser)


def unrecognized_option(message: str) -> str | None:
    """The option, without its dashes, that an error calls unknown; None if it is about something else."""
    match = re.search(r"nrecognized arguments: --([\w.]+)", message)
    return match and match[1]


def misses_recipe(message: str) -> bool:
    """Whether an error is that `fit` was told neither a model nor data."""
    return re.search(r"arguments are required: .*\.(data|model)\b", message) is not None


def refused_argument(message: str) -> RefusedArgument | None:
    """The argument that an error says a class does not accept; None if it is about something else."""
    match = re.search(r"class_path '([\w.]+)':\s+Option '(\w+)' is not accepted", message)
    return match and RefusedArgument(match[1], match[2])


def one_line(message: str) -> str:
    """The line that matters of jsonargparse's messages: the option, and the innermost of its nested reasons."""
    lines = [(len(line) - len(line.lstrip()), line.strip()) for line in message.splitlines() if line.strip()]
    innermost = max(lines, key=lambda line: line[0])
    path = [innermost[1].removeprefix("- ")]
    depth = innermost[0]
    for indent, line in reversed(lines[: lines.index(innermost)]):  # What it is nested in.
        if indent < depth:
            path.insert(0, line.removesuffix(":"))
            depth = indent
    keys = [match[1] for line in path[:-1] if (match := re.fullmatch(r'(?:- )?Parser key "([^"]+)"', line))]
    where = f"--{'.'.join(keys)}" if keys else path[0]
    what = re.sub(r"a <class '(?:\w+\.)*(\w+)'>", r"\1", path[-1])
    is_of_union = where == "Errors" or "against any of the Union subtypes" in where  # Which means nothing to a user.
    return what if len(path) == 1 or is_of_union else f"{where}: {what}"
