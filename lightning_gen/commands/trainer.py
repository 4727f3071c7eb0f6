"""`fit`, `validate`, `test` and `predict`: Lightning's own command line with our recipes, defaults and checkpoints."""

from __future__ import annotations

import argparse
import inspect
import json
import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

import torch
import yaml

from lightning_gen import __version__, datamodules, models
from lightning_gen._jsonargparse import one_line
from lightning_gen._lightning import (
    LightningDataModule,
    LightningModule,
    Trainer,
    leave_out_operations,
    misconfiguration,
    pl,
    relaunches,
    silence_warnings_without_use,
    started_processes,
)
from lightning_gen.callbacks import ClosingTable, ImageWriter, NanGuard, RandomState
from lightning_gen.callbacks.base import check_monitors, log_folder
from lightning_gen.callbacks.loggers import add_file
from lightning_gen.checkpoints import (
    WholeCheckpoints,
    check_class_paths,
    checkpoint_path,
    find_checkpoint,
    load_weights,
    module_config,
    read_checkpoint,
    run_config,
    saved_class,
)
from lightning_gen.commands.optimizer import choose_optimizer
from lightning_gen.errors import CheckpointError, DataError, LightningGenError, TrainingError
from lightning_gen.models.base import ImageModule
from lightning_gen.nn.frozen import resolve_class
from lightning_gen.parser import OneLineErrors, RecipeAction, own_error
from lightning_gen.recipes import recipe_name

lightning_cli: Any = import_module(f"{pl.__name__}.cli")

SHORT_NAMES = (models, datamodules)  # Imported, their classes are found by name: --model GAN --data DigitsDataModule.
LINKED = ("image_shape", "video_shape", "num_classes", "classes")  # What the data tell a model that asks for it.
WORDS = ("last", "best", "hpc")  # In the place of a checkpoint's path.
EPILOG = """
fit writes to logs/<recipe>/version_0, version_1 and so on; test and the like to a folder test in that of the run.
validate, test and predict need --ckpt_path alone: the model and the data are rebuilt from the checkpoint, and judged by
the callbacks that fit had. fit --ckpt_path goes on with a run in the same way, with all of its trainer settings. What
else is typed changes that. With --config or --model, these say what is built, and must agree with the checkpoint.
--ckpt_path is a file, a run's folder, or the folder of a recipe's runs (logs/vae_digits, or vae/digits), for the newest
one that has trained. --ckpt_path last is the newest run's newest checkpoint, below --checkpoint.dirpath or logs/; best
the one that its monitor calls the best; hpc what Lightning left when SLURM ended the job. fit --init_from begins anew
from a checkpoint's weights: on other data, with another step size.
"""


class RunConfig(lightning_cli.SaveConfigCallback):  # type: ignore[misc]
    """Keeps what a run was told: as config.yaml in its folder, in its checkpoints, and with its loggers."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.folder = log_folder(trainer)
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        path = self.folder / self.config_filename
        path.parent.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, str(path), skip_none=False, overwrite=True)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        told = {f"data.{name}": value for name, value in data.hparams.items()}
        for logger in trainer.loggers:
            add_file(logger, path)
            if not isinstance(logger, pl.loggers.TensorBoardLogger):  # Its table takes settings once: the model's.
                logger.log_hyperparams({"seed": self.config.seed_everything, "data": type(data).__name__} | told)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """The checkpoint may lie anywhere, and be moved."""
        config = self.parser.dump(self.config, skip_none=False)
        checkpoint["run"] = {"folder": str(self.folder.resolve()), "config": config}


class Parser(OneLineErrors, lightning_cli.LightningArgumentParser):  # type: ignore[misc]
    """Lightning's parser, with our errors."""


class TrainerCLI(lightning_cli.LightningCLI):  # type: ignore[misc]
    """Lightning's command line, with what every run of ours has and no recipe needs to say."""

    def init_parser(self, **kwargs: Any) -> Parser:
        """A parser that takes recipes by name."""
        parser = Parser(allow_abbrev=False, epilog=EPILOG, dump_header=[f"lightning_gen=={__version__}"], **kwargs)
        parser.add_argument(
            "-c", "--config", action=RecipeAction, help="A recipe's name (vae/digits), or a YAML file; more add to it."
        )
        return parser

    def add_arguments_to_parser(self, parser: Parser) -> None:
        """The `checkpoint` section, the optimizer, `--init_from`, and what the data tell the model."""
        parser.add_subclass_arguments(
            torch.optim.Optimizer,
            "optimizer",
            skip={"params", "lr"},
            instantiate=False,
            required=False,
            fail_untyped=False,
            help="Class of the model's optimizers, in place of its own; --optimizer.lr is --model.lr.",
        )
        parser.add_lightning_class_args(pl.callbacks.ModelCheckpoint, "checkpoint")
        parser.callback_keys.remove("checkpoint")  # Not every run has one: see instantiate_trainer.
        parser.set_defaults({"checkpoint.save_last": True, "checkpoint.save_on_train_epoch_end": True})
        parser.add_argument(
            "--init_from",
            type=str | None,
            help="A checkpoint from whose weights fit begins anew, in epoch 0 with new optimizers; not read where "
            "--ckpt_path goes on with a run.",
        )
        for name in LINKED:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def parse_arguments(self, parser: Parser, args: Any) -> None:
        """Without Lightning's warning about calls from Python.

        The checkpoint is put aside: Lightning would read it, and let its values silently win (issue 20801). See
        `check_checkpoint`.
        """
        self.config = parser.parse_args(args)
        command = self.config[self.config["subcommand"]]
        given, command["ckpt_path"] = command["ckpt_path"], None
        self.ckpt_path = given if given is None or given in WORDS else str(checkpoint_path(given))

    def before_instantiate_classes(self) -> None:
        """The checkpoint belongs to the configuration again."""
        self.config[self.subcommand]["ckpt_path"] = self.ckpt_path

    def instantiate_classes(self) -> None:
        """Leave the error of a constructor as it is."""
        found: Exception | None = None
        try:
            super().instantiate_classes()
        except ValueError as error:
            found = own_error(error)
        if found is not None:  # Raised here, it has no context that is not its own.
            raise found

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A run has a folder of its own, whatever its logger; one for its speed or for a trial leaves nothing."""
        given = self.config_init[self.subcommand]["trainer"]
        if given["barebones"]:
            kwargs |= {"logger": given["logger"] or None, "log_every_n_steps": None, "num_sanity_val_steps": None}
            self.save_config_callback = None
        elif given["logger"] in (None, True):
            kwargs["logger"] = pl.loggers.TensorBoardLogger(*self.place)
        elif not given["logger"] and given["enable_checkpointing"] is False:
            self.save_config_callback = None  # It would be written into the working directory.
        elif not given["logger"] and (checkpoint := self.config_init[self.subcommand]["checkpoint"]).dirpath is None:
            version = pl.loggers.CSVLogger(*self.place).log_dir  # The next one's; nothing is written yet.
            checkpoint.dirpath = os.path.join(version, "checkpoints")
        # Lightning 2.6 writes last.ckpt even after a fast_dev_run, in ModelCheckpoint.on_train_end.
        if not (given["barebones"] or given["fast_dev_run"] or given["enable_checkpointing"] is False):
            self.trainer_defaults["callbacks"].append(self.config_init[self.subcommand]["checkpoint"])
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (TypeError, ValueError, RuntimeError) as error:  # Lightning's own, about what was typed.
            raise LightningGenError(one_line(str(error) or type(error).__name__)) from error
        leave_out_operations(trainer)
        if type(trainer.strategy.checkpoint_io) is pl.plugins.TorchCheckpointIO:  # No other was asked for.
            trainer.strategy.checkpoint_io = WholeCheckpoints()
        if relaunches(trainer) and sys.argv[1:2] != [self.subcommand]:
            raise LightningGenError(
                "main() was called from Python, and strategy=ddp starts its other processes by repeating what was "
                "typed; type the command, or give --trainer.strategy ddp_spawn."
            )
        return trainer

    def after_instantiate_classes(self) -> None:
        """Check that data, model and checkpoint belong together, before anything is run or written."""
        config = self.config[self.subcommand]
        accepted = inspect.signature(type(self.model)).parameters
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values()):
            for name in set(LINKED) - set(accepted):  # They were not passed, but would make the checkpoint unloadable.
                self.model.hparams.pop(name, None)
        offered = getattr(self.datamodule, "image_shape", None)
        for name in ("image_shape", "video_shape"):
            given = config.get(f"model.init_args.{name}")
            if (
                given is not None
                and offered is not None
                and tuple(given) not in (tuple(offered), *defaults(name, self.model))
            ):
                raise DataError(
                    f"{name}={tuple(given)} was given, and {type(self.datamodule).__name__} has {name[:5]}s of "
                    f"{tuple(offered)}; leave {name} out, it comes from the data."
                )
        if config.optimizer is not None:
            kind = resolve_class(config.optimizer.class_path, torch.optim.Optimizer)
            choose_optimizer(self.model, kind, dict(config.optimizer.init_args))
        if config.ckpt_path in WORDS:
            path = find_checkpoint(config.ckpt_path, self.runs, self.trainer.default_root_dir)
            if path is None and (self.subcommand != "fit" or config.ckpt_path != "last"):
                raise CheckpointError(no_checkpoint(config.ckpt_path, self.runs, self.trainer.default_root_dir))
            # As in Lightning: a job that is queued again and again types the same, also the first time.
            found = "not there yet, and training begins" if path is None else path
            pl.utilities.rank_zero_info(f"--ckpt_path {config.ckpt_path}: {found}")
            config.ckpt_path = self.config_init[self.subcommand]["ckpt_path"] = None if path is None else str(path)
        if config.ckpt_path is not None:
            check_checkpoint(config.ckpt_path, self.model, resume=self.subcommand == "fit")
            self.check_tuners()
        elif self.subcommand == "fit" and config.init_from is not None:
            load_weights(self.model, config.init_from)
        if self.subcommand == "fit":
            check_monitors(self.trainer, ("val/", "val_"), every_n_epochs=1)

    def check_tuners(self) -> None:
        """Refuse a tuner in a run that goes on: Lightning forgets the checkpoint for the tuner's own trial runs."""
        for callback in self.trainer.callbacks if self.subcommand == "fit" else ():
            if isinstance(callback, (pl.callbacks.LearningRateFinder, pl.callbacks.BatchSizeFinder)):
                raise LightningGenError(
                    f"{type(callback).__name__} is for a new run, and this one goes on from a checkpoint; leave it out "
                    "or begin anew from the checkpoint's weights by --init_from."
                )

    @property
    def name(self) -> str:
        """Of the folder of such runs: the recipe's, that of the run which goes on, else the model's and the data's."""
        config = self.config[self.subcommand]
        for path in map(str, config.config or ()):
            recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8")) if Path(path).is_file() else {}
            told = [(recipe.get(part) or {}).get("class_path") for part in ("model", "data")]
            if told == [config.model.class_path, config.data.class_path]:
                return recipe_name(path).replace("/", "_")
        folders = Path(self.ckpt_path or "").parts[-4:-1]
        if not config.config and folders[2:] == ("checkpoints",):
            return folders[0]
        return "_".join(type(part).__module__.rpartition(".")[2] for part in (self.model, self.datamodule))

    @property
    def place(self) -> tuple[str, str]:
        """Where the folders of such runs are, and their name; those of a test are in that of the run."""
        root = self.config_init[self.subcommand]["trainer"]["default_root_dir"]
        if self.subcommand == "fit":
            return root or "logs", self.name
        run = Path(self.ckpt_path or "").parent
        is_known = root is None and run.name == "checkpoints"
        return str(run.parent if is_known else Path(root or "logs", self.name)), self.subcommand

    @property
    def runs(self) -> str:
        """The folder below which such runs have their checkpoints: that of the `checkpoint` section or the logger's."""
        config = self.config_init[self.subcommand]
        root, logger = config["trainer"]["default_root_dir"], config["trainer"]["logger"]
        if config["checkpoint"].dirpath is not None:
            return str(config["checkpoint"].dirpath)
        if not logger or logger is True:
            return os.path.join(root or "logs", self.name)
        first = logger[0] if isinstance(logger, list) else logger
        return os.path.join(first.save_dir or root or ".", str(first.name))

    @contextmanager
    def ending_together(self) -> Iterator[None]:
        """Where a command fails, no other process of the run is left behind, not even one that hangs."""
        try:
            yield
        except BaseException:
            for process in started_processes(self.trainer):
                try:
                    process.wait(10)  # It may have the error to tell that broke the others.
                except TimeoutExpired:
                    process.kill()
            raise

    def fit(self, model: LightningModule, **kwargs: Any) -> None:
        """Train; after Ctrl-C say how to go on."""
        try:
            with self.ending_together():
                self.trainer.fit(model, **kwargs)
        except SystemExit as exit_:  # Lightning's own, after it has shut down.
            if not self.trainer.interrupted or not self.trainer.is_global_zero:
                raise
            state = next(callback for callback in self.trainer.callbacks if isinstance(callback, RandomState))
            advice = state.advice or f"in epoch {self.trainer.current_epoch}; there is no checkpoint yet."
            raise TrainingError(f"interrupted {advice}") from exit_

    def validate(self, model: LightningModule, **kwargs: Any) -> None:
        """Judge on the validation images; `ClosingTable` shows what is found."""
        kwargs["verbose"] = not isinstance(model, ImageModule)
        with self.ending_together():
            self.trainer.validate(model, **kwargs)

    def test(self, model: LightningModule, **kwargs: Any) -> None:
        """Judge on the test images; `ClosingTable` shows what is found."""
        kwargs["verbose"] = not isinstance(model, ImageModule)
        with self.ending_together():
            self.trainer.test(model, **kwargs)

    def predict(self, model: LightningModule, **kwargs: Any) -> None:
        """Sample under the conditions of the test images; nobody looks at what is not written."""
        writes = any(isinstance(callback, pl.callbacks.BasePredictionWriter) for callback in self.trainer.callbacks)
        if not writes and isinstance(model, ImageModule):
            self.trainer.callbacks.append(ImageWriter())
        with self.ending_together():
            self.trainer.predict(model, **kwargs)


def defaults(name: str, made: object) -> list[Any]:
    """The defaults of an argument in the constructors of an object's class and of those that it derives from."""
    signatures = [inspect.signature(kind.__init__).parameters for kind in type(made).__mro__]  # type: ignore[misc]
    return [parameters[name].default for parameters in signatures if name in parameters]


def check_checkpoint(path: str, model: LightningModule, resume: bool) -> None:
    """Compare a checkpoint's hyper-parameters and weights with the model that they are to be loaded into.

    Other hyper-parameters are refused where a run is resumed, as its optimizers' state would bring the old ones back.
    In evaluation they are used, with a warning, if the weights fit.
    """
    checkpoint = read_checkpoint(path)
    saved = checkpoint.get("hyper_parameters", {})
    path_of_class = saved_class(checkpoint, "hyper_parameters")
    if path_of_class and not issubclass(resolve_class(path_of_class, LightningModule), type(model)):
        raise CheckpointError(f"{path} is a checkpoint of {path_of_class}, and {type(model).__name__} was given.")
    differing = ", ".join(  # By their JSON, as YAML has no tuples.
        f"{name}={value} ({saved[name]} in the checkpoint)"
        for name, value in model.hparams.items()
        if not name.startswith("_") and name in saved and json.dumps(value) != json.dumps(saved[name])
    )
    shapes, saved_shapes = (
        {name: value.shape for name, value in state.items()} for state in (model.state_dict(), checkpoint["state_dict"])
    )
    if resume and "optimizer_states" not in checkpoint:
        raise CheckpointError(
            f"{path} holds weights alone (save_weights_only), and no state of training to go on from; begin anew from "
            f"them: lightning-gen fit --init_from {path}"
        )
    if resume and differing:
        raise CheckpointError(f"{path} cannot be resumed with {differing}; leave that out, or train anew.")
    if shapes != saved_shapes:
        raise CheckpointError(
            f"The weights in {path} do not fit {type(model).__name__} with {differing or 'any setting'}."
        )
    if differing:
        print(f"lightning-gen: warning: {differing}: the given value is used.", file=sys.stderr)


def from_checkpoint(command: str, options: list[str]) -> list[str]:
    """Put a checkpoint's model, data and callbacks before the options, if neither a recipe nor a model is given."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    names = ["--ckpt_path", "--init_from", "--model", "--data", "--checkpoint.dirpath", "--trainer.default_root_dir"]
    for name in names:
        finder.add_argument(name, nargs="?")
    finder.add_argument("--config", "-c", nargs="?")
    given = vars(finder.parse_known_args(options)[0])
    path = given["ckpt_path"] or given["init_from"]
    if path is None or given["config"] or given["model"]:
        return options
    if path in WORDS:
        root = given["trainer.default_root_dir"]
        folder = given["checkpoint.dirpath"] or root or "logs"
        found = find_checkpoint(path, folder, root or ".")
        if found is None:
            raise CheckpointError(no_checkpoint(path, folder, root or "."))
        pl.utilities.rank_zero_info(f"--ckpt_path {path}: {found}")
        path = str(found)
        options = [*options, f"--ckpt_path={path}"]  # The last one counts.
    checkpoint = read_checkpoint(path)
    if command != "fit":
        checkpoint.get("datamodule_hyper_parameters", {}).pop("train_transform", None)  # It is for training batches.
    config: dict[str, Any] = {"model": module_config(checkpoint, "hyper_parameters", LightningModule)}
    if given["data"]:  # Other data, which have a shape and classes of their own.
        config["model"]["init_args"] = {k: v for k, v in config["model"]["init_args"].items() if k not in LINKED}
    elif "datamodule_hyper_parameters" in checkpoint:
        config["data"] = module_config(checkpoint, "datamodule_hyper_parameters", LightningDataModule)
    run = run_config(path)
    if run is None:
        pl.utilities.rank_zero_warn(
            f"{path} does not say with which callbacks it was trained, and there is no config.yaml of the run: only "
            "what the model measures by itself is measured; add others by --trainer.callbacks+=."
        )
    else:
        keys = run["trainer"] if command == "fit" else ("callbacks", "logger")  # The device is not the run's.
        config["trainer"] = {key: run["trainer"].get(key) for key in keys}
        if command == "fit" and run.get("optimizer"):
            config["optimizer"] = run["optimizer"]
        arguments = config.get("data", {}).get("init_args", {})
        if "train_transform" in arguments and isinstance(run.get("data"), dict):  # With enums as the parser has them.
            arguments |= {k: v for k, v in run["data"].get("init_args", {}).items() if k == "train_transform"}
        check_class_paths(config)
    return [f"--config={yaml.safe_dump(config, default_flow_style=True, width=math.inf)}", *options]  # JSON has no inf.


def no_checkpoint(word: str, folder: str, root: str) -> str:
    """That there is none, where it was looked for, and what to do."""
    kind = f"{word} checkpoint below {folder}"
    if word == "hpc":
        kind = f"hpc_ckpt_*.ckpt in {root}, which Lightning writes when SLURM ends a job"
    return f"--ckpt_path {word}: there is no {kind}; give the path of one, or --checkpoint.dirpath with its folder."


def run(command: str, options: list[str]) -> None:
    """Run `fit`, `validate`, `test` or `predict`."""
    silence_warnings_without_use()
    # The step size has one name, under which a checkpoint knows it.
    options = [re.sub(r"^--optimizer(\.init_args)?\.lr(?=$|=)", "--model.lr", option) for option in options]
    try:
        TrainerCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_class=Parser,
            save_config_callback=RunConfig,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
            trainer_defaults={"callbacks": [RandomState(), NanGuard(), ClosingTable()]},
            auto_configure_optimizers=False,
            args=[command, *from_checkpoint(command, options)],
        )
    except misconfiguration() as error:
        raise LightningGenError(" ".join(str(error).split())) from error
    except RuntimeError as error:  # That of the process which failed first stands above or below.
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(error):
            raise
        raise TrainingError(f"another process of this run failed, or does not answer: {error}") from error
    finally:  # Lightning leaves gloo's threads running, which can abort a process that ends.
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
