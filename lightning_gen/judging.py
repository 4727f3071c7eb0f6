"""`judge`: scores of anything that gives images, beside real ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_gen import metrics as scores
from lightning_gen import nn
from lightning_gen._lightning import Callback, LightningDataModule, Trainer
from lightning_gen.callbacks import Figure, SampleEvaluation
from lightning_gen.callbacks.foreign import Foreign
from lightning_gen.callbacks.randomness import own_randomness
from lightning_gen.checkpoints import load_model
from lightning_gen.datamodules.image_folder import as_8_bit, channels_of, find_pictures
from lightning_gen.errors import DataError, DatasetNotFoundError, LightningGenError, did_you_mean
from lightning_gen.metrics import SampleMetric
from lightning_gen.models.base import Condition, GenerativeModule, as_batch
from lightning_gen.nn import FeatureExtractor

Real: TypeAlias = LightningDataModule | Tensor | Iterable[Any] | str | Path
"""Real images: a data module, images `(N, C, H, W)` in [0, 1], a loader, or a folder of pictures of one shape."""


def judge(
    source: Any,
    real: Real,
    *,
    train: Tensor | Iterable[Any] | None = None,
    extractor: FeatureExtractor | str | None = None,
    metrics: Sequence[SampleMetric | str] | None = None,
    num_samples: int | None = None,
    split: Literal["val", "test"] = "test",
    reference: Literal["held_out", "train"] = "held_out",
    accelerator: str = "auto",
    seed: int = 0,
) -> dict[str, Figure]:
    """Score images against real ones, whoever has made them.

    >>> figures = judge(lambda n: torch.rand(n, 1, 8, 8), torch.rand(200, 1, 8, 8), metrics=["mmd_p_value"])
    >>> figures["mmd_p_value"].protocol[:12]
    '1000 samples'

    Args:
        source: a folder of pictures, images `(N, C, H, W)` in [0, 1], a loader of them, a checkpoint of ours or a
            recipe's name, an ONNX file with one input (of standard normal noise), a module with `sample(n)`, or a
            function of n.
        real: held-out images; a data module also has training images.
        train: training images, for scores that look for copies, and for the values of real images; those of the data
            module if None.
        extractor: whose features are compared, or its name, as `digits` or `inception`; the pixels alone if None.
        metrics: or their names, as `fid`; all that suit if None.
        num_samples: how many samples; all of a folder, tensor or loader, 1,000 of a model if None.
        split: the held-out images of a data module.
        reference: see `SampleEvaluation`.
        accelerator: where the model and the extractor run, such as cpu or gpu.
        seed: of the samples.

    Returns:
        By the metric's name, as `fid_digits`: value, standard error, what real training images get in the place of the
        samples (None where there are none), and the protocol.

    Raises:
        LightningGenError: if source, real images, extractor or metrics are none, or do not fit each other.
    """
    with own_randomness(seed, torch.device("cpu")):  # Loaders draw from the global stream too.
        found = score(
            source,
            real if isinstance(real, LightningDataModule) else RealImages(real, train),
            named_extractor(extractor) if isinstance(extractor, str) else extractor,
            metrics,
            num_samples,
            split if isinstance(real, LightningDataModule) else "val",
            reference,
            seed,
            accelerator=accelerator,
            logger=False,
            enable_progress_bar=False,
        )
    return {figure.name.partition("/")[2]: figure for figure in found}


def score(
    source: Any,
    real: LightningDataModule,
    extractor: FeatureExtractor | None,
    metrics: Sequence[SampleMetric | str] | None,
    num_samples: int | None,
    split: Literal["val", "test"],
    reference: Literal["held_out", "train"],
    seed: int,
    callbacks: Sequence[Callback] = (),
    ckpt_path: str | None = None,
    **settings: Any,
) -> list[Figure]:
    """What `judge` does once it is known what is what; callbacks, the model's checkpoint, settings of the Trainer."""
    model, number = as_model(source, real, num_samples, seed)
    number = number or 1000
    suited = all_metrics(number, count(real, split), extractor)
    if isinstance(real, RealImages) and real.train is None:
        suited = [metric for metric in suited if not metric.needs_training]
    chosen = suited if metrics is None else [named_metric(metric, suited) for metric in metrics]
    if metrics is None and model.no_density:
        print(f"Likelihood-like scores are left out: {model.no_density}.")
        chosen = [metric for metric in chosen if not metric.needs_density]
    evaluation = SampleEvaluation(chosen, number, extractor, seed=seed, reference=reference)
    trainer = Trainer(
        devices=1,
        callbacks=[*callbacks, evaluation],
        enable_checkpointing=False,
        enable_model_summary=False,
        **settings,
    )
    run = trainer.test if split == "test" else trainer.validate
    run(model, datamodule=real, ckpt_path=ckpt_path, weights_only=True, verbose=False)
    return list(evaluation.figures)


# What is judged -------------------------------------------------------------------------------------------------


def as_model(
    source: Any, real: LightningDataModule, num_samples: int | None, seed: int
) -> tuple[GenerativeModule, int | None]:
    """A model that gives the images of a source, and how many are to be drawn; None if that is as one likes."""
    if isinstance(source, (str, Path)) and Path(source).is_dir() and not any(Path(source).rglob("*.ckpt")):
        replay = Replay(Path(source), shape_of(real), num_samples, seed)
        return replay, len(replay.paths)
    if isinstance(source, (str, Path)):
        model = Foreign(onnx_sampler(source)) if Path(source).suffix == ".onnx" else load_model(source)
        return model, num_samples
    if isinstance(source, GenerativeModule):
        return source, num_samples
    if callable(source) or hasattr(source, "sample"):
        return Foreign(source), num_samples
    if not isinstance(source, Iterable):
        raise LightningGenError(
            f"{type(source).__name__} gives no images; expected a folder, images, a loader, a checkpoint, a module "
            "with sample(n) or a function of n."
        )
    given = gather(source)
    number = len(given) if num_samples is None else num_samples
    if not 1 <= number <= len(given):
        raise DataError(f"num_samples is {number}; there are 1 to {len(given)} images.")
    order = torch.randperm(len(given), generator=torch.Generator().manual_seed(seed))
    return Fixed(given[order[:number]]), number


class Fixed(GenerativeModule):
    """A model whose samples are given images, one after the other and then again from the first.

    Args:
        images: `(N, C, H, W)` in [0, 1].
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = images
        self.image_shape = tuple(images.shape[1:])
        self._next = 0

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        rows = [(self._next + i) % len(self.images) for i in range(num_samples)]
        self._next = (rows[-1] + 1) % len(self.images)
        return self.images[rows].to(self.device)


class Replay(GenerativeModule):
    """A model whose samples are the images of a folder, shuffled, one after the other and then again from the first.

    Names often go class by class: the first ones would be no sample of the model.

    Args:
        folder: holds an image file for each sample.
        image_shape: `(C, H, W)`, of the real images.
        num_samples: how many are taken; all if None.
        seed: of the shuffling.

    Raises:
        DatasetNotFoundError: if there are no images.
        DataError: if they are of different shapes, or of another one than the real images; or there are too few.
    """

    def __init__(
        self, folder: Path, image_shape: tuple[int, ...], num_samples: int | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        found = pictures_of(folder)
        if not 1 <= (number := len(found) if num_samples is None else num_samples) <= len(found):
            raise DataError(f"num_samples is {number}; there are 1 to {len(found)} images in {folder} to take.")
        order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
        self.paths = [found[index] for index in order[:number].tolist()]
        shape = common_shape(self.paths)
        if shape not in (image_shape, (3, *image_shape[1:])):
            raise DataError(
                f"The samples in {folder} have the shape {shape}, the real images {tuple(image_shape)}; give both the "
                "same size and channels, as a score is not to depend on how one of them is resized."
            )
        self._next = 0

    def _sample(self, num_samples: int, condition: Condition | None, generator: torch.Generator | None) -> Tensor:
        rows = [(self._next + i) % len(self.paths) for i in range(num_samples)]
        self._next = (rows[-1] + 1) % len(self.paths)
        return torch.stack([read_sample(self.paths[row], self.image_shape[0]) for row in rows]).to(self.device)


def onnx_sampler(path: str | Path) -> Any:
    """A function of n that runs an ONNX file's only input on standard normal noise, by onnxruntime."""
    try:
        import onnxruntime
    except ImportError as error:
        raise LightningGenError(
            "An ONNX file is run by onnxruntime, which is not installed; type: pip install 'lightning_gen[export]'"
        ) from error
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise LightningGenError(
            f"{path} has the inputs {', '.join(one.name for one in inputs)}; give a function of n that fills them."
        )

    def sample(number: int) -> Tensor:
        noise = torch.randn(number, *inputs[0].shape[1:])
        return torch.from_numpy(session.run(None, {inputs[0].name: noise.numpy()})[0])

    return sample


# What it is compared with ---------------------------------------------------------------------------------------


class RealImages(LightningDataModule):
    """Real images from wherever they are, as a data module.

    Args:
        held_out: see `Real`.
        train: see `judge`.
    """

    def __init__(self, held_out: Any, train: Any = None) -> None:
        super().__init__()
        if isinstance(held_out, (str, Path)):
            paths = pictures_of(Path(held_out))
            channels = common_shape(paths)[0]
            held_out = torch.stack([read_sample(path, channels) for path in paths])
        self.held_out, self.train = as_loader(held_out), None if train is None else as_loader(train)

    def val_dataloader(self) -> Any:
        return self.held_out

    def train_dataloader(self) -> Any:
        return self.train


def as_loader(images: Any) -> Any:
    """A loader of images that are given as a tensor; one that is given as itself."""
    if isinstance(images, Tensor):
        return DataLoader(TensorDataset(images), batch_size=250)
    if not isinstance(images, Iterable):
        raise LightningGenError(
            f"Real images are {type(images).__name__}; expected a data module, a tensor, a loader or a folder."
        )
    return images


def gather(batches: Tensor | Iterable[Any]) -> Tensor:
    """All images of a loader, `(N, C, H, W)`."""
    if isinstance(batches, Tensor):
        return batches
    found = [as_batch(batch)["image"] for batch in batches]
    if not found:
        raise DataError("The loader has no images.")
    return torch.cat(found)


def shape_of(real: Any) -> tuple[int, ...]:
    """Of one real image."""
    if isinstance(real, RealImages):
        return tuple(as_batch(next(iter(real.held_out)))["image"].shape[1:])
    return tuple(real.image_shape)


def count(real: Any, split: Literal["val", "test"]) -> int:
    """The number of held-out images."""
    if isinstance(real, RealImages):
        sized: Any = getattr(real.held_out, "dataset", None)
        number = len(sized) if hasattr(sized, "__len__") else len(gather(real.held_out))
    elif hasattr(real, "datasets"):
        real.setup()
        number = len(real.datasets[split])
    else:  # Of another project.
        real.setup("test" if split == "test" else "validate")
        number = len(gather(real.test_dataloader() if split == "test" else real.val_dataloader()))
    if not number:
        raise DataError(f"{type(real).__name__} has no {split} images; give another --split.")
    return number


# By what --------------------------------------------------------------------------------------------------------


def all_metrics(num_samples: int, num_held_out: int, extractor: FeatureExtractor | None) -> list[SampleMetric]:
    """All scores; where there are few images the kernel distance takes smaller subsets, as its protocol says."""
    on_pixels: list[SampleMetric] = [
        scores.ParzenLogLikelihood(),
        scores.TwoSamplePValue(),
        scores.Memorization(),
        scores.SupportSize(),
    ]
    if extractor is None:
        return on_pixels
    of_classes = [scores.InceptionScore(splits=min(10, num_samples)), scores.Confidence(), scores.ClassEntropy()]
    return [
        scores.FrechetDistance(),
        scores.KernelDistance(subset_size=min(1000, num_samples, num_held_out)),
        *(of_classes if extractor.num_classes else []),
        scores.Precision(),
        scores.Recall(),
        scores.Density(),
        scores.Coverage(),
        scores.TwoSamplePValue(on="features"),
        scores.Memorization(on="features"),
        scores.SupportSize(on="features"),
        scores.Authenticity(),
        scores.VendiScore(),
        *on_pixels,
    ]


def named_metric(wanted: SampleMetric | str, suited: Sequence[SampleMetric]) -> SampleMetric:
    """A metric by its name: one that suits, else one with its defaults."""
    if isinstance(wanted, SampleMetric):
        return wanted
    kinds = [getattr(scores, name) for name in scores.__all__]
    others = {kind.short_name: kind for kind in kinds if hasattr(kind, "short_name")}
    for metric in suited:
        if wanted in (metric.short_name, metric.name):
            return metric
    if wanted not in others:
        hint = did_you_mean(wanted, others)
        raise LightningGenError(f"There is no metric {wanted!r}{hint or '.'} Known are {', '.join(sorted(others))}.")
    made: SampleMetric = others[wanted]()
    return made


def named_extractor(name: str) -> FeatureExtractor:
    """An extractor by the name that its scores bear."""
    kinds = [
        kind
        for kind in vars(nn).values()
        if isinstance(kind, type) and issubclass(kind, FeatureExtractor) and kind is not FeatureExtractor
    ]
    named: dict[str, Any] = {getattr(kind, "name", kind.__name__.lower()): kind for kind in kinds}
    if name not in named:
        raise LightningGenError(f"There is no extractor {name!r}; known are {', '.join(sorted(named))}.")
    made: FeatureExtractor = named[name]()
    return made


# Pictures in a folder -------------------------------------------------------------------------------------------


def pictures_of(folder: Path) -> list[Path]:
    """The paths of a folder's pictures, if there are some."""
    found = [picture.path for picture in find_pictures(folder)]
    if not found:
        raise DatasetNotFoundError(
            f"There are no images in {folder}; write some: lightning-gen sample --ckpt_path last.ckpt --output DIR"
        )
    return found


def common_shape(paths: Sequence[Path]) -> tuple[int, int, int]:
    """`(C, H, W)` of all pictures."""
    shapes = {path: file_shape(path) for path in paths}
    first, shape = next(iter(shapes.items()))
    for path, other in shapes.items():
        if other != shape:
            raise DataError(f"{path} has the shape {other}, {first} {shape}; give samples of one shape.")
    return shape


def file_shape(path: Path) -> tuple[int, int, int]:
    """`(C, H, W)` by a file's header, C being 1 for grey."""
    try:
        with Image.open(path) as picture:
            return channels_of(picture), picture.height, picture.width
    except OSError as error:
        raise DataError(f"{path} cannot be read as a picture ({error}); replace or remove it.") from error


def read_sample(path: Path, channels: int) -> Tensor:
    """An image as it is, `(channels, H, W)` in [0, 1]; a grey one may have been saved with three equal channels."""
    try:
        with Image.open(path) as picture:
            pixels = torch.from_numpy(np.array(as_8_bit(picture, "L" if channels_of(picture) == 1 else "RGB")))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path} cannot be read as a picture ({error}); replace or remove it.") from error
    pixels = pixels.view(*pixels.shape[:2], -1).permute(2, 0, 1)  # (C, H, W)
    if len(pixels) > channels:
        if not (pixels == pixels[:1]).all():
            raise DataError(f"{path} is in colour, and the real images are grey; give samples in grey.")
        pixels = pixels[:1]
    return pixels.float() / 255
