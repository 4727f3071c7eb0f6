"""Two real processes against one on the joined images."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from lightning_gen.metrics import Samples
from tests.metrics.test_metrics import DATA, LABELS, METRICS, SIZES, make
from tests.ranks import spawn_ranks

SHARES = {"generated": [range(40), range(40, 60)], "reference": [range(35), range(35, 50)]}
SHARES["training"] = [range(25), range(25, 40)]
SHARES["tuning"] = [range(0, 30, 2), range(1, 30, 2)]  # In turns, as loaders share them: the first 20 are 10 of each.


def score_share(folder: Path) -> None:
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
    torch.save(results, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[Any]]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    spawn_ranks(score_share, folder)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", METRICS)
def test_two_ranks_equal_one(name: str, results: list[dict[str, list[Any]]]) -> None:
    alone = make(name)
    value = alone.compute().item()
    for rank in range(2):
        for other, error, protocol in results[rank][name]:
            assert other == pytest.approx(value, rel=1e-9)
            assert error == (alone.standard_error if error is None else pytest.approx(alone.standard_error, rel=1e-9))
            assert protocol == alone.protocol
