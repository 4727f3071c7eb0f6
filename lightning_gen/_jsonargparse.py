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


def refused_argument(message: str) -> RefusedArgument | None:
    """The argument that an error says a class does not accept; None if it is about something else."""
    match = re.search(r"class_path '([\w.]+)':\s+Option '(\w+)' is not accepted", message)
    return match and RefusedArgument(match[1], match[2])


def one_line(message: str) -> str:
    """The line that matters of an error: where, and the innermost of its nested reasons, which are indented."""
    lines = [line for line in message.splitlines() if line.strip()]
    where = lines[0].strip().removesuffix(":")
    what = max(lines, key=lambda line: len(line) - len(line.lstrip())).strip().removeprefix("- ")
    return where if len(lines) == 1 else f"{where}: {what}"
