"""What strangers pass: each public function, constructor and option under values that nobody should give.

Run in a process of its own, whose memory is limited: `python -m tests.hostile KIND EXAMPLES`. Constructors, `sample`
and options have two outcomes: a right answer, and an error of ours in one line. What takes more memory than there is
breaks as PyTorch does, and so may functions and metrics, but what they answer of tame values has no NaN.
"""

import inspect
import math
import os
import re
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_gen import callbacks, datamodules, functional, metrics, models
from lightning_gen._lightning import Trainer
from lightning_gen.arguments import annotations_of
from lightning_gen.cli import FUNCTIONS, main
from lightning_gen.errors import DataError, LightningGenError

MEMORY, SECONDS = 4 * 2**30, 2.0

PLAIN = [0, -1, 1, 2, 3, 10**6, 2**40, 2**63, -(2**63), 0.5, -0.5, 2.5, math.nan, math.inf, -math.inf, 1e308]
PLAIN += [True, False, None, "", "x", "nowhere/ключ 💥", "ä" * 3000, "cuda:99", b"\xff", [], [0], [-1, 2], (), (0,)]
PLAIN += [(1, 0, 3), (-1, -1), (1, 2**20, 2**20), [math.nan], ["a", None], {}, {"a": 1}, object(), len, 1j]
PLAIN += [Path("\0"), [[[1]]], range(2)]

SHAPES = [
    (),
    (0,),
    (1,),
    (3,),
    (0, 3),
    (2, 0),
    (1, 1),
    (2, 3),
    (3, 2),
    (3, 3),
    (2, 1, 3),
    (2, 3, 4, 4),
    (1, 1, 2, 4, 4),
]

FILLINGS = ["float", "double", "half", "long", "byte", "bool", "nan", "inf", "complex", "meta", "large", "signed"]


class TooLong(BaseException):
    """What has been asked for is being computed, and takes long."""


@contextmanager
def no_longer_than(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except TooLong:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    shape, kind = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(FILLINGS))
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    if kind in ("nan", "inf"):
        return values * math.nan if kind == "nan" else values / 0
    if kind == "signed":
        return 4 * values - 2
    if kind == "large":
        return values * 1e38
    if kind in ("long", "byte"):
        return (values * 5).to(getattr(torch, {"long": "int64", "byte": "uint8"}[kind]))
    if kind == "meta":
        return values.to("meta")
    dtypes = {"half": torch.float16, "bool": torch.bool, "complex": torch.complex64, "double": torch.float64}
    return values.to(dtypes.get(kind, torch.float32))


STATED = re.compile(r"^    +(\w+):(?:(?!\n +\w+:)[^`])*?`\(([^`]*)\)`", re.MULTILINE)
"""The shape of an argument in a docstring."""

ITS_OWN = (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError, AttributeError, MemoryError)
"""What Python and PyTorch raise."""

hostile = st.one_of(st.sampled_from(PLAIN), tensors())


def plausible(name: str, kind: Any, stated: list[str] | None, sizes: dict[str, int]) -> Any:
    """A value that the signature and the docstring speak for."""
    if kind is Tensor or Tensor in get_args(kind):
        letters = [letter for letter in stated or ["N"] if letter != "..."]
        shape = [int(letter) if letter.isdigit() else sizes.setdefault(letter, 3) for letter in letters]
        values = torch.rand(shape, generator=torch.Generator().manual_seed(len(name)))
        if name.endswith(("labels", "assignment")) or name == "predicted":
            return (3 * values).long()
        return values > 0.5 if name in ("mask", "other") else values
    if get_origin(kind) is Literal:
        return get_args(kind)[0]
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) is list:
        return ["a"] if get_args(kind) == (str,) else []
    if kind in (int, float, bool, str):
        return {int: 2, float: 0.5, bool: False, str: "a"}[kind]
    if "Callable" in str(kind):
        return lambda z: -z.square().sum(-1)
    return [2, 3] if name == "sizes" else [torch.rand(2, 3, 2, 2), torch.rand(2, 3, 3, 3)] if name == "bands" else [1.0]


def numbers(value: Any) -> Iterator[Tensor]:
    """Every tensor and number of a value."""
    if isinstance(value, (Tensor, float)):
        yield torch.as_tensor(value)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from numbers(one)


def is_tame(values: Mapping[str, Any]) -> bool:
    """Whether no number is NaN, infinite, complex or of a size that overflows, and no tensor without any."""
    found = [one for value in values.values() for one in numbers(value)]
    return all(
        bool(one.numel()) and not one.is_meta and not one.is_complex() and bool((one.double().abs() < 1e3).all())
        for one in found
    )


def outcome(call: Callable[[], Any], *others: type[Exception]) -> Any:
    """What a call gives; an error must be ours, of one line, or one of those others that are allowed."""
    try:
        with no_longer_than(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call()
        return None  # It takes long.
    except LightningGenError as error:
        said = str(error)
    except others:
        return None
    assert said.strip(), "an error without words"
    assert "\n" not in said, said
    assert len(said) < 1000, said
    return None


FAILURES: list[str] = []


def check(test: Callable[[Any], None], examples: int) -> None:
    """Run a test under drawn data, and remember how it failed."""

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def run(data: Any) -> None:
        test(data)

    try:
        run()
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        notes = " ".join(getattr(error, "__notes__", []))
        FAILURES.append(f"{test}: {type(error).__name__}: {error} ({where.filename}:{where.lineno}) {notes}"[:3000])


def arguments_of(function: Any) -> dict[str, inspect.Parameter]:
    """Its parameters by name, self and stars left out."""
    found = inspect.signature(function).parameters
    return {
        name: p for name, p in found.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and name != "self"
    }


def changed(data: Any, names: list[str]) -> dict[str, Any]:
    """One or two of the arguments, with values that nobody should give."""
    chosen = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)) if names else []
    return {name: data.draw(hostile, label=name) for name in chosen}


def public(module: Any) -> list[str]:
    return [name for name in module.__all__ if callable(getattr(module, name)) and not get_args(getattr(module, name))]


def a_function(name: str, data: Any) -> None:
    function = getattr(functional, name)
    kinds = annotations_of(function)
    stated = {key: re.split(r",\s*", shape.rstrip(",")) for key, shape in STATED.findall(function.__doc__ or "")}
    sizes: dict[str, int] = {}
    values = {
        key: plausible(key, kinds.get(key), stated.get(key), sizes)
        for key, parameter in arguments_of(function).items()
        if parameter.default is parameter.empty
    }
    values |= changed(data, list(arguments_of(function)))
    result = outcome(lambda: function(**values), *ITS_OWN)
    if is_tame(values):
        for one in numbers(result):
            assert not one.isnan().any(), f"{name} of {values} is {result}"


def hostile_functions(examples: int) -> None:
    for name in public(functional):
        check(partial(a_function, name), examples)


def small_models() -> dict[str, dict[str, Any]]:
    """The arguments of small models, as the test of ranks has them; the defaults of all others."""
    from tests.test_distributed import MODELS

    found: dict[str, dict[str, Any]] = {}
    for make in MODELS.values():
        model = make()
        kind = next(base for base in type(model).__mro__ if base.__module__.startswith("lightning_gen"))
        accepted = arguments_of(kind)
        found[kind.__name__] = {key: value for key, value in model.hparams.items() if key in accepted}
    return found


def a_constructor(kind: Any, valid: Mapping[str, Any], data: Any) -> None:
    given = changed(data, list(arguments_of(kind)))
    outcome(lambda: kind(**{**valid, **given}), *(ITS_OWN if is_large(given.values()) else ()))


def is_large(values: Iterable[Any]) -> bool:
    """Whether a size is among values that no machine has the memory for."""
    return any(
        is_large(value) if isinstance(value, (list, tuple)) else isinstance(value, int) and value >= 10**6
        for value in values
    )


def classes_of(module: Any) -> list[Any]:
    found = [getattr(module, name) for name in module.__all__]
    return [
        kind for kind in found if inspect.isclass(kind) and not inspect.isabstract(kind) and not issubclass(kind, tuple)
    ]


def needed_by(kind: Any) -> dict[str, Any]:
    """Values for the arguments that a class has no default for."""
    kinds, parameters = annotations_of(kind.__init__), arguments_of(kind).items()
    return {key: plausible(key, kinds[key], None, {}) for key, p in parameters if p.default is p.empty}


def hostile_constructors(module: Any, examples: int, small: Mapping[str, dict[str, Any]]) -> None:
    for kind in classes_of(module):
        check(partial(a_constructor, kind, needed_by(kind) | small.get(kind.__name__, {})), examples)


class Extractor:
    """What names and sizes a metric asks for."""

    name, num_features, num_classes = "digits", 3, 10

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return torch.rand(len(images), 3), torch.rand(len(images), 10)


ATTRIBUTE = {"AttributeAgreement": {"attribute": "digit"}}


def a_metric(kind: Any, data: Any) -> None:
    metric = kind(**ATTRIBUTE.get(kind.__name__, {}))
    try:
        metric.bind(Extractor())
    except DataError:  # It needs an extractor of its own.
        return
    samples = {"images": torch.rand(3, 1, 4, 4), "features": torch.rand(3, 3), "logits": torch.rand(3, 10)}
    batch: dict[str, Any] = {"label": torch.arange(3), "box": torch.rand(3, 4), "keypoints": torch.rand(3, 5, 3)}
    batch["caption"] = ["a thin upright 3"] * 3
    samples |= changed(data, list(samples))
    batch |= changed(data, list(batch))
    role = data.draw(st.sampled_from(["generated", "reference", "tuning", "training", "", None, 3]))
    values = {"samples": metrics.Samples(**samples), "batch": batch, "role": role}
    values |= changed(data, list(values)) if data.draw(st.booleans()) else {}
    outcome(lambda: metric.update(**values), *ITS_OWN)
    outcome(metric.compute, *ITS_OWN)


def hostile_metrics(examples: int) -> None:
    hostile_constructors(metrics, examples, ATTRIBUTE)
    for kind in classes_of(metrics):
        check(partial(a_metric, kind), examples)


def a_sample(model: Any, data: Any) -> None:
    keys = [*model.condition_keys, *model.optional_condition_keys, "nothing"]
    number = data.draw(st.one_of(st.just(2), hostile), label="num_samples")
    condition = data.draw(st.one_of(st.none(), st.dictionaries(st.sampled_from(keys), hostile), hostile))
    generator = data.draw(st.sampled_from([None, None, torch.Generator(), 0, "cpu"]))
    images = outcome(lambda: model.sample(number, condition, generator=generator))
    if isinstance(images, Tensor):
        assert images.shape[0] == number, f"{images.shape} of {number}"


def hostile_models(examples: int) -> None:
    small = small_models()
    hostile_constructors(models, examples, small)
    for name, values in small.items():
        model = getattr(models, name)(**values)
        if isinstance(model, models.GenerativeModule):
            check(partial(a_sample, model), examples)


TYPED = ["", "-1", "0", "nan", "inf", "1e400", "99999999999999999999", "nowhere/ключ 💥", "ä" * 5000, "null", "[]"]
TYPED += ["{}", "[1,2", "{a: 1}", "../..", "true", "cuda:99", "!!python/object/apply:os.system ['true']", "&a [*a]"]
TYPED += ["--", "\n"]


def typed(*words: str) -> None:
    """Type a command: it succeeds, or says in one line what is wrong."""
    errors = StringIO()
    try:
        with no_longer_than(15), redirect_stderr(errors), redirect_stdout(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            main(list(words))
    except SystemExit as exit_:
        if exit_.code not in (0, None):
            said = [line for line in errors.getvalue().splitlines() if line.startswith("lightning-gen: error: ")]
            assert len(said) == 1, (words, errors.getvalue()[-2000:])


def an_option(name: str, options: Mapping[str, inspect.Parameter], checkpoint: Path, data: Any) -> None:
    words = [name, *(["--num_samples", "3"] if "num_samples" in options else [])]
    for key, parameter in options.items():
        if parameter.default is parameter.empty:
            words += [f"--{key}", str(checkpoint) if key == "ckpt_path" else "out.png"]
    option = data.draw(st.sampled_from(sorted(options)))
    inner = data.draw(st.sampled_from(["", ".label", ".caption", ".box"])) if option == "condition" else ""
    typed(*words, f"--{option}{inner}={data.draw(st.sampled_from(TYPED))}")


def a_run(words: list[str], options: list[str], data: Any) -> None:
    typed(*words, f"--{data.draw(st.sampled_from(options))}={data.draw(st.sampled_from(TYPED))}")


def hostile_options(examples: int) -> None:
    from tests.conftest import DATA, MODEL, QUIET

    fit = ["fit", *MODEL, *DATA, *QUIET, "--trainer.logger", "false"]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        typed(*fit, "--trainer.max_epochs", "1")
        (checkpoint,) = Path(folder).rglob("last.ckpt")
        for name, (place, _) in FUNCTIONS.items():
            module, function = place.split(":")
            options = arguments_of(getattr(import_module(f"lightning_gen.commands.{module}"), function))
            if options:
                check(partial(an_option, name, options, checkpoint), examples)
        known = {"model": models.VAE, "data": datamodules.FakeDataModule, "trainer": Trainer}
        known_options = [f"{part}.{key}" for part, kind in known.items() for key in arguments_of(kind)]
        known_options += ["config", "ckpt_path", "seed_everything", "model", "data", "checkpoint.monitor"]
        check(partial(a_run, [*fit, "--trainer.fast_dev_run", "1"], known_options), 5 * examples)


KINDS: dict[str, Callable[[int], None]] = {
    "functions": hostile_functions,
    "metrics": hostile_metrics,
    "datamodules": lambda examples: hostile_constructors(datamodules, examples, {}),
    "callbacks": lambda examples: hostile_constructors(callbacks, examples, {}),
    "models": hostile_models,
    "options": hostile_options,
}

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    KINDS[sys.argv[1]](int(sys.argv[2]))
    print("\n".join(FAILURES))
    sys.exit(len(FAILURES) > 0)
