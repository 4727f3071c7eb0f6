"""The command line: `lightning-gen`, `python -m lightning_gen` and `python cli.py` are all `main`.

Each command is imported only when it is called, so that `list` and `--help` wait for neither PyTorch nor Lightning.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from typing import TextIO

from lightning_gen.errors import LightningGenError, did_you_mean

TRAINER = {  # Lightning's, in commands/trainer.py
    "fit": "train a model: lightning-gen fit --config vae/digits",
    "validate": "judge a checkpoint on the validation images",
    "test": "judge a checkpoint on the test images: lightning-gen test --ckpt_path last.ckpt",
    "predict": "sample a checkpoint under the conditions of the test images",
}
FUNCTIONS = {  # name: where its function is, and what it does
    "sample": (
        "sample:sample",
        "write a checkpoint's images: lightning-gen sample --ckpt_path last.ckpt --output a.png",
    ),
    "export": (
        "export:export",
        "write the generator as a graph: lightning-gen export --ckpt_path last.ckpt --output gen.onnx",
    ),
    "interpolate": (
        "interpolate:interpolate",
        "draw the way from sample to sample: lightning-gen interpolate --ckpt_path last.ckpt --output a.png",
    ),
    "arithmetic": ("arithmetic:arithmetic", "draw sums and differences of samples: a - b + c"),
    "draw": (
        "draw:draw",
        "show how a DRAW, a LAPGAN or a VGAN draws: lightning-gen draw --ckpt_path last.ckpt --output a.gif",
    ),
    "activate": (
        "activate:activate",
        "draw what a network's units want to see: lightning-gen activate --ckpt_path last.ckpt --output a.png",
    ),
    "move": (
        "move:move",
        "draw the same while its box or its keypoints move: lightning-gen move --ckpt_path last.ckpt --output a.png",
    ),
    "reword": ("reword:reword", "change one word of captions of digits, and read what changes in the pictures"),
    "styles": ("styles:styles", "tell images of one pose from others by what a GANINTCLS takes for their style"),
    "probe": ("probe:probe", "classify images by what a checkpoint's discriminator sees in them"),
    "finetune": ("finetune:finetune", "classify videos by a VGAN's discriminator and a few labels"),
    "evaluate": (
        "evaluate:evaluate",
        "judge a folder of images as a model: lightning-gen evaluate --samples DIR --data DigitsDataModule",
    ),
    "parzen": ("parzen:parzen", "score MNIST's own training images as samples, to see what a Parzen window is worth"),
    "compare": (
        "compare:compare",
        "set runs side by side: lightning-gen compare logs/gan_digits logs/vae_digits --output a.html",
    ),
    "study": ("study:study", "make a page that asks people which images are real: lightning-gen study RUN --real DATA"),
    "augment": ("augment:augment", "train a classifier on a checkpoint's samples, and on real images with and without"),
    "retrieve": ("retrieve:retrieve", "search and cluster images by what a checkpoint's encoder makes of them"),
    "ais": (
        "ais:ais",
        "estimate a decoder's likelihood, a GAN's too: lightning-gen ais --ckpt_path last.ckpt",
    ),
    "mixture": ("mixture:mixture", "show good likelihoods of bad samples, and the reverse, on a model of digits"),
    "divergences": ("divergences:divergences", "draw what fits by KL, MMD and JSD make of the same data"),
    "list": ("list:list_recipes", "show the recipes, and what each of them reaches"),
}
HELP = f"""usage: lightning-gen COMMAND [options]

Trains, judges and samples the deep generative models of images that the field began with.

{chr(10).join(f"  {name:12}{text}" for name, text in [*TRAINER.items(), *((k, v[1]) for k, v in FUNCTIONS.items())])}

`lightning-gen COMMAND --help` shows the options of a command. Each command also takes --import MODULE, which imports
your own classes first, so that a checkpoint of one can be opened. An error is one line; with LIGHTNING_GEN_TRACEBACK=1
in the environment it comes with its traceback.
"""


def import_own(options: list[str]) -> list[str]:
    """Import the modules that `--import` names, from here or from where Python finds them; the other options remain."""
    if not any(option.partition("=")[0] == "--import" for option in options):
        return options
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--import", dest="modules", action="append", default=[], metavar="MODULE")
    given, others = parser.parse_known_args(options)
    for name in given.modules:
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):  # Something that the module itself imports.
                raise
            raise LightningGenError(f"There is no module {name} in {os.getcwd()}, nor installed.") from error
    return others


def main(args: list[str] | None = None) -> None:
    """Run one command.

    Args:
        args: what would be typed after `lightning-gen`; what was typed if None.

    Raises:
        SystemExit: with a code other than 0 after an error, which stands on stderr in one line; with 141, and no word,
            if nobody reads the output any more, as `| head`.
    """
    try:
        try:
            run(*((sys.argv[1:] if args is None else args) or ["--help"]))
        finally:
            sys.stdout.flush()  # Else a reader that has gone would be noticed at exit, too late to be quiet about.
    except BrokenPipeError as error:
        if is_read(sys.stdout):  # Another pipe, such as one between processes.
            print(f"lightning-gen: error: {error}", file=sys.stderr)
            sys.exit(1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # For what is left, at exit.
        sys.exit(128 + 13)  # As a shell says of a program that SIGPIPE has ended.
    except (LightningGenError, OSError) as error:  # The system's own messages name the file too.
        if os.environ.get("LIGHTNING_GEN_TRACEBACK"):
            raise
        print(f"lightning-gen: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:  # In fit, Lightning's own handling comes first.
        print("lightning-gen: interrupted", file=sys.stderr)
        sys.exit(130)


def run(name: str, *given: str) -> None:
    """Do what a command's function does."""
    options = import_own(list(given))
    if name in ("-h", "--help"):
        print(HELP, end="")
    elif name in TRAINER:
        import_module("lightning_gen.commands.trainer").run(name, options)
    elif name in FUNCTIONS:
        from lightning_gen.parser import run_function

        module, function = FUNCTIONS[name][0].split(":")
        command = getattr(import_module(f"lightning_gen.commands.{module}"), function)
        if lightning := sys.modules.get("lightning_gen._lightning"):  # Not all of them wait for it.
            lightning.silence_warnings_without_use()
        run_function(name, command, options)
    else:
        hint = did_you_mean(name, [*TRAINER, *FUNCTIONS]) or "."
        raise LightningGenError(f"{name!r} is not a command{hint} See lightning-gen --help.")


def is_read(stream: TextIO) -> bool:
    """Whether what is written to a stream still goes anywhere."""
    try:
        stream.write("\n")
        stream.flush()
    except BrokenPipeError:
        return False
    return True
