"""What each model costs at its published setting: bytes sent, memory, floating-point operations, largest images.

    python -m tests.benchmarks.cost [MODEL ...]

Nothing is computed: the real training steps run on tensors that have a shape and no values (PyTorch's fake tensors),
while every operation, allocation and message is counted.
"""

import argparse
import math
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import KW_ONLY, dataclass
from functools import cache, partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lightning_gen._lightning import Callback, pl
from lightning_gen.functional.pyramid import _resampling
from lightning_gen.models import (
    ACGAN,
    CGAN,
    DCGAN,
    DGNAM,
    DRAW,
    GAN,
    GANINTCLS,
    GAWWN,
    GMMN,
    LAPGAN,
    NADE,
    PPGN,
    VAE,
    VGAN,
    VPN,
    BernoulliMixture,
    ConvolutionalCGAN,
    EoNADE,
    GenerativeModule,
    ImprovedGAN,
    KeypointGAN,
    MultiScalePixelRNN,
    Pix2Pix,
    PixelRNN,
    VGANAutoencoder,
)
from lightning_gen.nn.pixel_lstm import diagonal_order, row_order
from tests.digits import quiet_trainer

GB = 1e9
CARDS = (16, 40, 80)


@dataclass
class Setting:
    """A model as published, and how it grows.

    Attributes:
        make: the model for images of a side, with other arguments.
        side: of the published images.
        batch: the published number of images.
        half: arguments that make it half as wide.
        passes: of its networks that a sample takes one after another; n is the side.
        sides: all sides that it takes; none if it takes every multiple of `unit`.
        unit: side that others are multiples of.
        least: images that a batch needs.
        sampled: a smaller side to sample at, where every pixel costs as much.
        sequential: whether a training step goes through rows or columns one after another, which takes long here.
    """

    make: Callable[..., GenerativeModule]
    side: int
    batch: int
    half: dict[str, Any]
    passes: str
    sides: tuple[int, ...] = ()
    _: KW_ONLY
    unit: int = 1
    least: int = 1
    sampled: int | None = None
    sequential: bool = False


def doubled(side: int, times: int) -> tuple[int, ...]:
    return tuple(side << power for power in range(times))


def acgan(n: int, factor: int = 1) -> ACGAN:
    """The layers of 128 x 128, on larger first maps."""
    generator, discriminator = (768, 384, 256, 192, 64), (16, 32, 64, 128, 256, 512)
    return ACGAN(
        (3, n, n),
        generator_channels=tuple(width // factor for width in generator),
        discriminator_channels=tuple(width // factor for width in discriminator),
    )


def lapgan(n: int, factor: int = 1) -> LAPGAN:
    """The bands of CIFAR-10, and for each doubling of the side one more."""
    sizes = doubled(8, (n // 8).bit_length())
    widths = (64, *[128] * len(sizes))[: len(sizes) - 1]
    hidden = (1200 // factor, 600 // factor)
    return LAPGAN((3, n, n), sizes, hidden_sizes=hidden, channels=tuple(width // factor for width in widths))


def steered(kind: type[DGNAM], n: int, factor: int = 1) -> DGNAM:
    """Without what reads numbers: a discriminator is never paused."""
    channels = ((256, 512), (256, 256), (128, 128), (64,), (32,))
    layers = ((32, 7, 4), (64, 5, 1), (128, 3, 2), (256, 3, 1), (256, 3, 2))
    return kind(
        (3, n, n),
        generator_units=(4096 // factor,) * 3,
        generator_channels=tuple(tuple(width // factor for width in level) for level in channels),
        discriminator_layers=tuple((width // factor, kernel, stride) for width, kernel, stride in layers),
        discriminator_units=(1024 // factor, 512 // factor, 512 // factor),
        pause_d_below=0.0,
        pause_g_above=None,
    )


def pixel_rnn_cifar10(n: int, **given: Any) -> PixelRNN:
    widths = {"hidden_size": 126, "head_size": 1023, **given}
    return PixelRNN((3, n, n), levels=256, num_layers=12, residual=True, skip=True, **widths)


HALF_CHANNELS = {"base_channels": 64, "discriminator_channels": 64}

SETTINGS = {
    "VAE": Setting(lambda n, **a: VAE((1, n, n), **a), 28, 100, {"hidden_size": 250}, "1"),
    "NADE": Setting(
        lambda n, **a: NADE((1, n, n), **a), 28, 100, {"hidden_size": 250}, "n², of a pixel each", sequential=True
    ),
    "EoNADE": Setting(lambda n, **a: EoNADE((1, n, n), **a), 28, 100, {"hidden_size": 250}, "n²"),
    "BernoulliMixture": Setting(
        lambda n, **a: BernoulliMixture((1, n, n), **a), 28, 1000, {"num_components": 250}, "1"
    ),
    "PixelRNN": Setting(
        lambda n, **a: PixelRNN((1, n, n), **a),
        *(28, 16, {"hidden_size": 8, "head_size": 16}, "n², of a pixel each"),
        sequential=True,
    ),
    "PixelRNN, CIFAR-10": Setting(
        pixel_rnn_cifar10,
        *(32, 16, {"hidden_size": 63, "head_size": 510}, "3 n², of a pixel each"),
        sequential=True,
        sampled=4,
    ),
    "MultiScalePixelRNN": Setting(
        lambda n, **a: MultiScalePixelRNN((1, n, n), n // 4, **a),
        *(28, 16, {"hidden_size": 8, "head_size": 16}, "(n / 4)², then 15/16 n², of a pixel each"),
        unit=4,
        sequential=True,
    ),
    "DRAW": Setting(lambda n, **a: DRAW((1, n, n), **a), 28, 100, {"hidden_size": 128}, "64 glimpses"),
    "GAN": Setting(lambda n, **a: GAN((1, n, n), **a), 28, 100, {"hidden_size": 600, "maxout_units": 120}, "1"),
    "CGAN": Setting(
        lambda n, **a: CGAN((1, n, n), **a),
        *(28, 100, {"hidden_sizes": (100, 500, 600), "maxout_units": (120, 25, 120)}, "1"),
    ),
    "ConvolutionalCGAN": Setting(
        lambda n, **a: ConvolutionalCGAN((3, n, n), **a),
        *(32, 128, {"hidden_size": 4000, "maxout_channels": (32, 32, 96), "maxout_units": 250}, "1", (32,)),
    ),
    "DCGAN": Setting(
        lambda n, **a: DCGAN((3, n, n), **a),
        *(64, 128, {"base_channels": 64}, "1", (16, 32, 64, 128)),
        least=2,
    ),
    "ACGAN": Setting(acgan, 128, 100, {"factor": 2}, "1", unit=64, least=2),
    "GANINTCLS": Setting(
        lambda n, **a: GANINTCLS((3, n, n), **a),
        *(64, 64, {"generator_channels": 64, "discriminator_channels": 32}, "1", doubled(64, 7)),
        least=2,
    ),
    "LAPGAN": Setting(lapgan, 32, 128, {"factor": 2}, "log2(n / 8) + 1, each of a band", doubled(32, 9)),
    "GAWWN": Setting(lambda n, **a: GAWWN((3, n, n), **a), 128, 16, HALF_CHANNELS, "1", doubled(128, 3), least=2),
    "KeypointGAN": Setting(lambda n, **a: KeypointGAN(**a), 0, 64, HALF_CHANNELS, "1", (0,), least=2),
    "ImprovedGAN": Setting(
        lambda n, **a: ImprovedGAN((3, n, n), network="cifar10", num_labels=4000, input_noise=0.2, **a),
        *(32, 100, {}, "1", (32,)),
        least=2,
    ),
    "Pix2Pix": Setting(lambda n, **a: Pix2Pix((3, n, n), **a), 256, 1, {"base_channels": 32}, "1", unit=256),
    "GMMN": Setting(lambda n, **a: GMMN((1, n, n), **a), 28, 1000, {"hidden_sizes": (32, 128, 128, 512)}, "1"),
    "VGAN": Setting(
        lambda n, **a: VGAN((3, 32, n, n), **a),
        *(64, 64, {"base_channels": 32, "discriminator_channels": 32}, "1, for all frames", (16, 32, 64, 128)),
        least=2,
    ),
    "VGANAutoencoder": Setting(
        lambda n, **a: VGANAutoencoder((3, 32, n, n), **a),
        *(64, 64, {"base_channels": 32}, "1, for all frames", (16, 32, 64, 128)),
        least=2,
    ),
    "VPN": Setting(
        lambda n, **a: VPN((1, 20, n, n), **a),
        *(64, 64, {"channels": 64, "head_size": 384}, "n² a frame, of a pixel each"),
        sampled=8,
    ),
    "DGNAM": Setting(partial(steered, DGNAM), 227, 64, {"factor": 2}, "200, each there and back", (227, 256)),
    "PPGN": Setting(partial(steered, PPGN), 227, 64, {"factor": 2}, "200, each there and back", (227, 256)),
}


def batch_of(model: GenerativeModule, size: int) -> dict[str, Tensor]:
    """All that any model reads, `size` of each."""
    shape = (model.image_shape[0], *model.image_shape[-2:]) if model.data_key != "keypoints" else (1, 1, 1)
    given = model.hparams
    return {
        "image": torch.rand(size, *shape),
        "source": torch.rand(size, *shape),
        "video": torch.rand(size, *model.image_shape) if model.data_key == "video" else torch.rand(()),
        "label": torch.zeros(size, dtype=torch.long),
        "attributes": torch.rand(size, given.get("condition_size") or 1),
        "text_embedding": torch.rand(size, 10, given.get("text_dim", 1)),
        "box": torch.rand(size, 4),
        "keypoints": torch.rand(size, given.get("num_keypoints", 1), 3),
    }


# Counting -----------------------------------------------------------------------------------------------------------


class Counter(TorchDispatchMode):
    """Counts what operations compute and allocate, and makes up the numbers that Python reads from fake tensors.

    Attributes:
        flops: floating-point operations of matrix products and convolutions so far; a multiplication and addition is 2.
        live: bytes of all tensors that are alive.
        peak: the most there were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.live = self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return True if args[0].dtype is torch.bool else 0.5 if args[0].is_floating_point() else 0
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        plain = getattr(torch.ops.aten, func._overloadpacket.__name__.rstrip("_"), None)  # In place or not.
        if plain in flop_registry:
            self.flops += flop_registry[plain](*args, **kwargs, out_val=result)
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self._alive:
                storage = tensor.untyped_storage()
                self._alive.add(storage._cdata)
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        return result

    def _free(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.live -= size


class Messages(pl.strategies.SingleDeviceStrategy):
    """One process that is told that there are more, and counts what its model would give to them.

    Attributes:
        sent: bytes of the tensors that the model averages over ranks, gradients among them, or gathers.
    """

    def __init__(self, ranks: int = 1) -> None:
        super().__init__("cpu")
        self.world_size, self.sent = ranks, 0

    def reduce(self, tensor: Any, *arguments: Any, **settings: Any) -> Any:
        self.sent += tensor.nbytes
        return tensor

    def all_gather(self, tensor: Tensor, group: Any = None, sync_grads: bool = False) -> Tensor:
        self.sent += tensor.nbytes
        return torch.stack([tensor] * self.world_size)


class SecondStep(Callback):
    """What each count grows by in the second step: the first makes the state of optimizers, the last ends an epoch."""

    def __init__(self, **counts: Callable[[], int]) -> None:
        self.counts = counts

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            self.before = {name: count() for name, count in self.counts.items()}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            self.grown = {name: count() - self.before[name] for name, count in self.counts.items()}


KEPT = (row_order, diagonal_order, _resampling)  # Tensors that one run would leave to the next.


@contextmanager
def counting(fake: bool = True) -> Iterator[Counter]:
    """Tensors without values inside, if fake; then modules stay where they are, as these cannot be moved."""
    stays = {name: lambda self, *_, **__: self for name in ("to", "cpu")}
    for function in KEPT:
        function.cache_clear()
    try:
        with ExitStack() as stack:
            if fake:
                stack.enter_context(patch.multiple(nn.Module, **stays))
                stack.enter_context(FakeTensorMode())
            yield stack.enter_context(Counter())
    finally:
        for function in KEPT:
            function.cache_clear()


@dataclass
class Cost:
    """Of a training step.

    Attributes:
        gradients: bytes that are averaged over ranks, or gathered.
        fixed: bytes of weights, gradients, buffers and the state of optimizers.
        peak: bytes that are alive at once, at most.
        flops: floating-point operations of matrix products and convolutions.
    """

    gradients: int
    fixed: int
    peak: int
    flops: int


def nbytes(tensors: Iterable[Any]) -> int:
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))


@cache
def step(name: str, side: int, batch: int, ranks: int = 1, half: bool = False) -> Cost:
    """What a model's training step costs. Sequences are faster with values: there are many operations, all small."""
    setting = SETTINGS[name]
    with counting(not setting.sequential) as counter:
        return cost(setting.make(side, **(setting.half if half else {})), batch, counter, ranks)


def cost(model: GenerativeModule, batch: int, counter: Counter, ranks: int = 1) -> Cost:
    """What a training step costs, without the checks, logs and statistics of the data that come once."""
    model.modes_checked = {True, False}
    model.fit_codes = lambda: None  # type: ignore[assignment]  # What VGANAutoencoder does at the end of an epoch.
    model.on_fit_start = model.log = model.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    strategy = Messages(ranks)
    second = SecondStep(sent=lambda: strategy.sent, flops=lambda: counter.flops)
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0, strategy=strategy, callbacks=[second])
    trainer.fit(model, iter([batch_of(model, batch)] * 3))
    trained = nbytes(p for p in model.parameters() if p.requires_grad)
    state = nbytes(
        value for optimizer in trainer.optimizers for state in optimizer.state.values() for value in state.values()
    )
    return Cost(
        gradients=trained if model.automatic_optimization else second.grown["sent"],
        fixed=nbytes(model.parameters()) + nbytes(model.buffers()) + trained + state,
        peak=counter.peak,
        flops=second.grown["flops"],
    )


def largest(name: str) -> list[str]:
    """The largest sides whose peak, at the smallest batch, is within the memory of each card."""
    setting = SETTINGS[name]

    def peak(side: int) -> int:
        return step(name, side, setting.least).peak

    if setting.sides:
        return [str(max((n for n in setting.sides if peak(n) <= card * GB), default="none")) for card in CARDS]
    # Every tensor has a number of elements that is a polynomial of the side.
    start, unit = setting.side if setting.sequential else 8 * setting.side, setting.unit
    points = [max(round(start * factor / unit), 1) * unit for factor in (1, 1.25, 1.5, 2)]
    *fitted, check = points
    quadratic = torch.linalg.solve(
        torch.tensor([[1.0, n, n * n] for n in fitted]).double(), torch.tensor([peak(n) for n in fitted]).double()
    )
    c, b, a = quadratic.tolist()
    assert abs((a * check + b) * check + c - peak(check)) < 0.01 * peak(check), f"{name} is no quadratic: {points}"
    roots = [(-b + math.sqrt(b * b - 4 * a * (c - card * GB))) / (2 * a) for card in CARDS]
    return [str(int(root / unit) * unit) for root in roots]


def sampling(name: str) -> float:
    """Floating-point operations of a sample."""
    setting = SETTINGS[name]
    side = setting.sampled or setting.side
    with counting(not setting.sequential) as counter:
        model = setting.make(side)
        given = batch_of(model, 1)
        given["text_embedding"] = given["text_embedding"].mean(1)
        keys = [*model.condition_keys, *(key for key in model.optional_condition_keys if key == "keypoints")]
        if "video" in model.condition_keys:
            given["video"] = given["video"][:, :, : model.context_frames]
        before = counter.flops
        if isinstance(model, GMMN):
            model.steps = [1, 1]
        model.check_condition = lambda condition, *_, **__: condition  # type: ignore[method-assign]
        model.sample(1, {key: given[key] for key in keys} or None)
        return (counter.flops - before) * (setting.side / side if side else 1) ** 2


# Tables -------------------------------------------------------------------------------------------------------------


def digits(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def times(name: str, side: int, half: bool = False) -> str:
    """How many times the operations of a published step one of another side, or half as wide, has."""
    setting = SETTINGS[name]
    if side % setting.unit or (setting.sides and side not in setting.sides) or (half and not setting.half):
        return "-"
    few = max(setting.least, 2)
    return f"{step(name, side, few, half=half).flops / (step(name, setting.side, few).flops or 1):.2f}"


def row(name: str) -> str:
    """A line of the table."""
    setting = SETTINGS[name]
    side, batch = setting.side, setting.batch
    many = 2 if setting.sequential else max(batch, 64)  # So many that no peak is that of the weights' update.
    few, twice = step(name, side, many), step(name, side, 2 * many)
    image = (twice.peak - few.peak) / many
    peak = few.peak + (batch - many) * image if setting.sequential else step(name, side, batch).peak
    ranks = few if setting.sequential else step(name, side, batch, 2)
    cells = (
        name,
        f"{side} x {side}" if side else "-",
        batch,
        digits(ranks.gradients / 1e6),
        digits(few.fixed / 1e6),
        digits(image / 1e6),
        digits(peak / GB),
        *(largest(name) if side else ["-"] * len(CARDS)),
        digits(few.flops / many / 1e9),
        times(name, side, half=True),
        times(name, 2 * side) if side else "-",
        digits(sampling(name) / 1e9),
        setting.passes,
    )
    return "".join(f"| {cell} " for cell in cells) + "|"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=list(SETTINGS))
    for name in parser.parse_args().models:
        print(row(name), flush=True)
