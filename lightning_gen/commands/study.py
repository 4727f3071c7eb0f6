"""`lightning-gen study`: people say which images are real (Denton et al. 2015, section 4.3)."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_gen.commands.page import fill, image_source
from lightning_gen.commands.pictures import Device, new_output
from lightning_gen.commands.runs import find_run, load_run
from lightning_gen.datamodules.base import ImageDataModule
from lightning_gen.errors import DataError, LightningGenError

if TYPE_CHECKING:
    from torch import Tensor

EXAMPLES = 8  # Real images shown before the first question, none of which is asked about.
FORMAT = "lightning_gen study 1"


def study(
    run: str,
    /,
    real: ImageDataModule,
    output: str,
    num_images: int = 60,
    milliseconds: list[int] = [50, 100, 200, 500, 1000, 2000],  # noqa: B006
    seed: int = 0,
    device: Device = "auto",
) -> None:
    """Make a page that shows images for a short time and asks whether they are real.

    The page opens from disk in any browser and needs no network. Real and generated images stand in a shuffled order,
    each for a time out of the list and then behind grey; two buttons or keys answer, and nobody is told what was right.
    At the end the answers are saved as a JSON file: `lightning-gen compare` finds it as study*.json in the run's
    folder, or takes it as --study, and shows how often each kind was taken for real.

    Args:
        run: a run's folder, or a checkpoint.
        real: the data module with the real images, as DigitsDataModule; their test images are shown.
        output: a .html.
        num_images: of each kind.
        milliseconds: times that images are shown for, each for as many real as generated images.
        seed: of the samples, the choice of real images, their order and their times.
        device: where to sample; auto takes the GPU if there is one.
    """
    if num_images < 1:
        raise LightningGenError(f"num_images is {num_images}; expected at least 1.")
    if not milliseconds or min(milliseconds) < 1:
        raise LightningGenError(f"milliseconds is {milliseconds}; expected times above 0, as in [50,200,2000].")
    with new_output(output, (".html",)) as draft:
        found = find_run(run)
        model = load_run(found, device, seed)
        assert found.checkpoint is not None  # Or there would be no model.
        shape = tuple(model.image_shape)
        if len(shape) != 3 or shape[0] not in (1, 3) or min(shape[1:]) < 2:
            raise LightningGenError(f"{type(model).__name__} with image_shape={shape} draws no images to be looked at.")
        chooser = random.Random(seed)
        batch = choose_real(real, shape, num_images + EXAMPLES, chooser)
        examples, shown = batch["image"][:EXAMPLES], batch["image"][EXAMPLES:]
        rows = slice(EXAMPLES, None)  # A model that needs a condition takes those of the real images.
        condition = {key: batch[key][rows] for key in model.condition_keys if key in batch}
        samples = model.sample(num_images, condition or None).cpu()
        content = {
            "about": {
                "format": FORMAT,
                "run": found.name,
                "checkpoint": fingerprint(found.checkpoint),
                "real": f"{type(real).__name__.removesuffix('DataModule')}, test",
                "seed": seed,
            },
            "examples": [image_source(image) for image in examples],
            "trials": make_trials(shown, samples, milliseconds, chooser),
        }
        _, height, width = shape
        text = json.dumps(content).replace("<", "\\u003c")  # No name can end the script element.
        page = fill("study.html", study=text, number=str(2 * num_images), width=str(width), height=str(height))
        draft.write_text(page, encoding="utf-8")
    print(f"{num_images} real and {num_images} generated images in {output}")


def choose_real(data: ImageDataModule, shape: tuple[int, ...], number: int, chooser: random.Random) -> dict[str, Any]:
    """Different test images at random, as a batch.

    Raises:
        DataError: if they have another shape than the model's, or are too few.
    """
    data.setup()
    dataset: Any = data.datasets["test"]
    name = type(data).__name__
    if tuple(data.image_shape) != shape:
        raise DataError(f"{name} has images of {tuple(data.image_shape)}, and the model draws {shape}; give its data.")
    if len(dataset) < number:
        raise DataError(
            f"{name} has {len(dataset)} test images and {number} are needed, {EXAMPLES} of them as examples; "
            f"give --num_images {max(len(dataset) - EXAMPLES, 0)} or less."
        )
    return dataset.__getitems__(chooser.sample(range(len(dataset)), number))


def make_trials(real: Tensor, generated: Tensor, milliseconds: Sequence[int], chooser: random.Random) -> list[Any]:
    """All images in a random order, each with a time; each time as often with real as with generated ones."""
    trials = []
    for images, kind in ((real, True), (generated, False)):
        for index, image in enumerate(images):
            time = milliseconds[index % len(milliseconds)]
            trials.append({"id": new_name(kind, chooser), "milliseconds": time, "image": image_source(image)})
    chooser.shuffle(trials)
    return trials


def new_name(real: bool, chooser: random.Random) -> str:
    """A name for an image that says what it is to `is_real`, and nothing to the eye."""
    while is_real(name := f"{chooser.getrandbits(48):012x}") != real:
        pass
    return name


def is_real(name: str) -> bool:
    """Whether an image with this name is a real one. So neither the page nor its results hold a list of answers."""
    return hashlib.sha256(name.encode()).digest()[0] % 2 == 1


def fingerprint(checkpoint: Path) -> str:
    """What tells a checkpoint from all others, sixteen hexadecimal digits."""
    digest = hashlib.sha256()
    with checkpoint.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


# Results ------------------------------------------------------------------------------------------------------------


class Judged(NamedTuple):
    """How often images of one kind, shown for one time, were taken for real."""

    milliseconds: int
    real: bool  # the kind
    number: int  # answers
    share: float

    @property
    def standard_error(self) -> float:
        """Of the share, with one answer of each sort added, so that ten equal answers do not look certain."""
        share = (self.share * self.number + 1) / (self.number + 2)
        return math.sqrt(share * (1 - share) / self.number)


class Results(NamedTuple):
    """The answers of everybody who judged one checkpoint's images."""

    judged: list[Judged]  # by time, generated before real
    people: int
    late: int  # answers left out, as the image stood for another time than planned (a slow or hidden page)
    real: str  # the real images


def read_answers(path: Path) -> dict[str, Any]:
    """One file that the page has saved.

    Raises:
        LightningGenError: if it is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT or not all(isinstance(content[key], str) for key in ("checkpoint", "session")):
            raise ValueError("another format")
        for given in content["answers"]:
            if given["answer"] not in ("real", "generated"):
                raise ValueError(f"the answer {given['answer']!r}")
            int(given["milliseconds"]), float(given["shown"]), is_real(given["id"])
    except OSError as error:
        raise LightningGenError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LightningGenError(
            f"{path} holds no answers as a page of lightning-gen study saves them ({type(error).__name__}: {error})."
        ) from error
    return content


def summarize(files: Sequence[dict[str, Any]]) -> Results:
    """Count the answers of one checkpoint's files; one saved twice counts once."""
    sessions = {content["session"]: content for content in files}
    counts: dict[tuple[int, bool], list[bool]] = {}
    late = 0
    for given in (given for content in sessions.values() for given in content["answers"]):
        planned = int(given["milliseconds"])
        if abs(float(given["shown"]) - planned) > max(50, planned / 4):
            late += 1
            continue
        counts.setdefault((planned, is_real(given["id"])), []).append(given["answer"] == "real")
    judged = [Judged(*key, len(answers), sum(answers) / len(answers)) for key, answers in sorted(counts.items())]
    return Results(judged, len(sessions), late, str(files[0].get("real", "")))
