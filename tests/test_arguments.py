"""Bounds of constructors: stated in their signatures, held where arguments are kept, and only for classes of ours."""

import inspect
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import numpy as np
import pytest
import torch
from annotated_types import Ge, Gt, Len

from lightning_gen import callbacks, datamodules, functional, metrics, models
from lightning_gen.arguments import BOUNDS, annotations_of, fits, limit_of, plain, readable
from lightning_gen.errors import DataError
from lightning_gen.metrics import SampleMetric
from tests.hostile import classes_of, needed_by

FREE = {"seed", "label_seed", "classes", "labels"}
"""Numbers without a bound: any seed, and labels, which are compared with the data."""

OURS: list[Any] = [kind for module in (models, datamodules, callbacks, metrics) for kind in classes_of(module)]


def parameters_of(kind: Any) -> Iterator[tuple[str, Any]]:
    kinds = annotations_of(kind.__init__)
    yield from ((name, one) for name, one in kinds.items() if name != "return")


def numbers_in(kind: Any) -> Iterator[Any]:
    """The types of numbers in an annotation, each with its bounds."""
    if kind in (int, float) or (get_origin(kind) is Annotated and get_args(kind)[0] in (int, float)):
        yield kind
    else:
        for one in get_args(kind):
            yield from numbers_in(one)


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_every_number_has_a_bound_in_the_signature(kind: Any) -> None:
    bare = [name for name, one in parameters_of(kind) if name not in FREE and {int, float} & set(numbers_in(one))]
    assert not bare


def below(kind: Any) -> Any:
    """A value that breaks the first bound of an annotation and nothing else; None where it states none."""
    if get_origin(kind) is Annotated:
        inner, *bounds = get_args(kind)
        if any(isinstance(bound, Len) for bound in bounds):
            return [1] * 7
        for bound in bounds:
            if type(bound) in (Ge, Gt):
                return inner(limit_of(bound)) - (1 if isinstance(bound, Ge) else 0)
        return None
    if get_origin(kind) is dict:
        wrong = below(get_args(kind)[1])
        return None if wrong is None else {"digit": wrong}
    found = [below(one) for one in get_args(kind) if one is not Ellipsis]
    if get_origin(kind) in (list, tuple):
        return found if None not in found else None
    return next((one for one in found if one is not None), None)


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_every_bound_is_held_by_the_constructor_that_states_it(kind: Any) -> None:
    for name, annotation in parameters_of(kind):
        wrong = below(annotation)
        if wrong is not None:
            with pytest.raises(DataError, match=rf"^{kind.__name__} got {name}=.*; expected"):
                kind(**{**needed_by(kind), name: wrong})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_dim": 0}, "GAN got latent_dim=0; expected int >= 1."),
        ({"latent_dim": "7"}, "GAN got latent_dim='7'; expected int >= 1."),
        ({"latent_dim": True}, "GAN got latent_dim=True; expected int >= 1."),
        ({"lr": float("nan")}, "GAN got lr=nan; expected float >= 0."),
        ({"hidden_dropout": 2}, "GAN got hidden_dropout=2; expected float >= 0 and <= 1."),
        ({"image_shape": (28, 28)}, "GAN got image_shape=(28, 28); expected (channels, height, width)."),
        ({"noise": "normal"}, "GAN got noise='normal'; expected one of uniform, gaussian."),
        ({"momentum": (0.5,)}, "GAN got momentum=(0.5,); expected tuple[float >= 0 and <= 1, float >= 0 and <= 1]."),
        ({"input_noise_epochs": 0}, "GAN got input_noise_epochs=0; expected int >= 1 or None."),
        ({"input_noise": -1.0}, "GAN got input_noise=-1.0; expected float >= 0."),
    ],
)
def test_what_was_given_and_what_was_expected_are_said_in_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        models.GAN(**arguments)
    assert str(caught.value) == message


def test_an_unknown_argument_is_pythons_own_error() -> None:
    with pytest.raises(TypeError, match=r"GAN.__init__\(\) got an unexpected keyword argument 'nonsense'"):
        models.GAN(nonsense=3)


@pytest.mark.parametrize("value", [np.int64(7), np.float32(0.5), np.bool_(True), Path("a")])
def test_values_that_stand_for_plain_ones_fit(value: Any) -> None:
    kind = {np.int64: int, np.float32: float, np.bool_: object}.get(type(value), str)
    assert fits(value, kind)


# Strangers' callbacks and metrics -------------------------------------------------------------------------------


def test_arguments_of_strangers_callbacks_and_metrics_are_theirs() -> None:
    class Grid(callbacks.SampleGrid):
        def __init__(self, offset: float = -1.0, clip: float = float("inf"), **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.offset, self.clip = offset, clip

    class Shift(SampleMetric):
        short_name = "shift"

        def __init__(self, offset: float = -1.0, queue_size: int = 0) -> None:
            super().__init__()
            self.offset, self.queue_size = offset, queue_size

        def update(self, *arguments: Any) -> None: ...

        def compute(self) -> torch.Tensor:
            return torch.tensor(self.offset)

    assert Grid(offset=-2.0, num_samples=4).offset == -2
    assert Shift(offset=-2.0).queue_size == 0
    with pytest.raises(DataError, match=r"^Grid got num_samples=0; expected int >= 1\.$"):
        Grid(num_samples=0)


# Plain values ---------------------------------------------------------------------------------------------------


class Colour(Enum):
    RED = "red"


class Word(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.array([[1, 2]]), [[1, 2]]),
        (np.array(2.5), 2.5),
        (np.str_("a"), "a"),
        (Word("a"), "a"),
        (Path("a/b"), "a/b"),
        (Colour.RED, "red"),
        ((np.int32(1), [Path("a")]), (1, ["a"])),
        ({Colour.RED: np.arange(2)}, {"red": [0, 1]}),
        (range(2), [0, 1]),
        (True, True),
        (None, None),
    ],
)
def test_plain_values(value: Any, expected: Any) -> None:
    def kinds(one: Any) -> Any:
        inner = one.items() if isinstance(one, dict) else one if isinstance(one, (list, tuple)) else ()
        return type(one), [kinds(part) for part in inner]

    assert plain(value) == expected
    assert kinds(plain(value)) == kinds(expected)


def test_tensors_and_what_nobody_knows_stay_as_they_are() -> None:
    tensor, thing = torch.zeros(2), object()
    assert plain(tensor) is tensor
    assert plain(thing) is thing


# Functions ------------------------------------------------------------------------------------------------------


def test_public_functions_are_the_plain_ones() -> None:
    for name in functional.__all__:
        thing = getattr(functional, name)
        assert getattr(inspect.getmodule(thing), name) is thing
        assert not hasattr(thing, "__wrapped__")


COMPILED: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "discriminator_loss": (functional.discriminator_loss, (torch.randn(3, 1), torch.randn(3, 1))),
    "gaussian_kl": (functional.gaussian_kl, (torch.randn(3, 2), torch.randn(3, 2))),
    "bernoulli_log_prob": (functional.bernoulli_log_prob, (torch.ones(3, 1, 2, 2), torch.randn(5, 3, 1, 2, 2))),
    "normal_log_prob": (functional.normal_log_prob, (torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2), 0.5)),
    "filterbank": (functional.filterbank, (torch.ones(3), torch.ones(3), torch.zeros(3), 2, 5)),
    "class_log_prob": (functional.class_log_prob, (torch.randn(3, 4), torch.tensor([0, 3, 1]))),
}


@pytest.mark.parametrize("name", COMPILED)
def test_functions_compile_as_a_whole(name: str) -> None:
    function, arguments = COMPILED[name]
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    assert torch.equal(compiled(*arguments), function(*arguments))


BROADCAST: dict[str, tuple[Any, ...]] = {  # Each of them gave a number before it was looked at.
    "gaussian_kl": (torch.zeros(4, 1, 2), torch.zeros(4, 2)),
    "bernoulli_log_prob": (torch.zeros(4, 1, 5, 5), torch.zeros(4, 3, 5, 5)),
    "normal_log_prob": (torch.zeros(4, 1, 5, 5), torch.zeros(4, 3, 5, 5)),
    "class_log_prob": (torch.zeros(4, 10), torch.zeros(3, dtype=torch.int64)),
    "truncated_class_score": (torch.zeros(4, 10), torch.zeros(3, dtype=torch.int64)),
    "langevin_step": (torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(1, 2), 1.0, 1.0),
    "scaled_step": (torch.zeros(1, 2), torch.ones(4, 2), 1.0),
    "purity": (torch.zeros(4, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)),
    "retrieval_precision": (
        torch.zeros(4, 2),
        torch.zeros(1, dtype=torch.int64),
        torch.zeros(20, 2),
        torch.zeros(20, dtype=torch.int64),
    ),
    "frechet_distance": (torch.zeros(1), torch.eye(2), torch.zeros(2), torch.eye(2)),
    "filterbank": (torch.ones(3), torch.ones(1), torch.zeros(3), 2, 5),
    "interpolate": (torch.ones(1), torch.zeros(3), 2),
    "mask_iou": (torch.ones(4, 5, 5, dtype=torch.bool), torch.ones(1, 5, 5, dtype=torch.bool)),
    "label_confusion": (torch.zeros(4, 5, dtype=torch.int64), torch.zeros(1, 5, dtype=torch.int64), 3),
    "ms_ssim": (torch.rand(4, 1, 32, 32), torch.rand(1, 1, 32, 32)),
}


@pytest.mark.parametrize("name", BROADCAST)
def test_shapes_that_would_broadcast_in_silence_are_said(name: str) -> None:
    with pytest.raises(DataError, match=r"^\w+ has the shape \(.*\), .*; expected the same( in the last 3 dim.*)?\.$"):
        getattr(functional, name)(*BROADCAST[name])


def test_other_errors_are_pytorchs_own() -> None:
    with pytest.raises(RuntimeError, match="Expected size for first two dimensions"):
        functional.read_patch(torch.zeros(2, 1, 4, 4), torch.zeros(2, 3, 5), torch.zeros(2, 3, 4))


def test_types_are_said_as_they_would_be_typed() -> None:
    assert readable(annotations_of(models.GMMN.__init__)["bandwidths"]) == "tuple[float > 0, ...] or None"
    assert readable(annotations_of(models.AttributeClassifier.__init__)["attributes"]) == "dict[str, int >= 1]"
    assert set(BOUNDS) >= {Ge, Gt}
