"""Two real processes against one on the joined images."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from lightning_gen import metrics
from lightning_gen.functional.placement import ink_box, stroke_keypoints
from lightning_gen.metrics import AttributeAgreement, BoxIoU, KeypointAccuracy, LabelScore, SampleMetric, Samples
from lightning_gen.models import AttributeClassifier, LabelReader
from lightning_gen.nn import AttributeFeatures, LabelFeatures
from tests.metrics.test_metrics import DATA, LABELS, METRICS, SIZES, make
from tests.ranks import spawn_ranks

SHARES = {"generated": [range(40), range(40, 60)], "reference": [range(35), range(35, 50)]}
SHARES["training"] = [range(25), range(25, 40)]
SHARES["tuning"] = [range(0, 30, 2), range(1, 30, 2)]  # In turns, as loaders share them: the first 20 are 10 of each.

CONDITIONED = ("attribute", "attribute_held_out", "box_iou", "keypoint_accuracy", "labels")


def conditioned(name: str, folder: Path, rows: range = range(60)) -> SampleMetric:
    """A metric that compares samples with what was asked for, fed with some of 60."""
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(60, 3, 8, 8, generator=draw)
    ink = images.flip(3).amax(1)  # What was asked for is not quite what is drawn.
    batch = {
        "attributes": torch.randint(2, (60, 2), generator=draw),
        "held_out": torch.rand(60, generator=draw) < 0.4,
        "box": ink_box(ink, 0.97),
        "keypoints": stroke_keypoints(ink, 0.97),
        "source": torch.rand(60, 3, 8, 8, generator=draw),
    }
    metric: SampleMetric = {
        "attribute": lambda: AttributeAgreement("size"),
        "attribute_held_out": lambda: AttributeAgreement("size", "held_out"),
        "box_iou": lambda: BoxIoU(0.97),
        "keypoint_accuracy": lambda: KeypointAccuracy(0.3, 0.97),
        "labels": lambda: LabelScore("iou"),
    }[name]()
    seen = Samples(images)
    if metric.needs_features:
        extractor = (LabelFeatures if name == "labels" else AttributeFeatures)(str(folder / f"{name[:9]}.ckpt"))
        metric.bind(extractor)
        seen = Samples(images, *extractor(images))
    metric.update(
        Samples(*(field[rows] for field in seen if field is not None)), {k: v[rows] for k, v in batch.items()}
    )
    return metric


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The networks behind them, untrained."""
    folder = tmp_path_factory.mktemp("judges")
    torch.manual_seed(0)
    for name, model in {
        "attribute": AttributeClassifier((3, 8, 8), {"size": 2, "grey": 2}, 2, 4),
        "labels": LabelReader((3, 8, 8), ((0, 0, 0), (255, 0, 0), (0, 255, 255)), 2),
    }.items():
        torch.save({"hyper_parameters": dict(model.hparams), "state_dict": model.state_dict()}, folder / f"{name}.ckpt")
    return folder


def score_share(folder: Path, judges: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    results: dict[str, list[Any]] = {}
    for name in METRICS:
        metric = make(name, fed=False)
        results[name] = []
        for turn in range(2):
            for role in SIZES if turn == 0 else ("generated",):
                rows = SHARES[role][rank]
                metric.update(Samples(*(field[rows] for field in DATA[role])), {"label": LABELS[rows]}, role)
            results[name].append((metric.compute().item(), metric.standard_error, metric.protocol))
            metric.reset_generated()  # The second turn has the real images of the first.
    for name in CONDITIONED:
        metric = conditioned(name, judges, SHARES["generated"][rank])
        results[name] = [(metric.compute().item(), metric.standard_error, metric.protocol)]
    torch.save(results, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def results(judges: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[Any]]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    spawn_ranks(score_share, folder, judges)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_every_metric_is_here() -> None:
    here = {type(make(name, fed=False)).__name__ for name in METRICS}
    here |= {"AttributeAgreement", "BoxIoU", "KeypointAccuracy", "LabelScore"}
    assert set(metrics.__all__) - here == {"SampleMetric", "Samples"}


@pytest.mark.parametrize("name", [*METRICS, *CONDITIONED])
def test_two_ranks_equal_one(name: str, results: list[dict[str, list[Any]]], judges: Path) -> None:
    alone = make(name) if name in METRICS else conditioned(name, judges)
    value = alone.compute().item()
    for rank in range(2):
        for other, error, protocol in results[rank][name]:
            assert other == pytest.approx(value, rel=1e-9)
            assert error == (alone.standard_error if error is None else pytest.approx(alone.standard_error, rel=1e-9))
            assert protocol == alone.protocol
