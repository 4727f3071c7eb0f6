"""PPGN steered by classifiers that it was not trained with, and read by others: odd and even, thin and thick."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gen.cli import main
from lightning_gen.datamodules import DigitsDataModule
from lightning_gen.datamodules.captioned_digits import THICKNESS_LIMITS
from lightning_gen.functional.strokes import stroke_thickness
from lightning_gen.models import PPGN, DigitClassifier
from lightning_gen.models.base import Batch
from lightning_gen.nn import DigitNetwork

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PPGN:
    folder = tmp_path_factory.mktemp("ppgn")
    main(["fit", "--config", "ppgn/digits", "--trainer.default_root_dir", str(folder)])
    (path,) = Path(folder).rglob("last.ckpt")
    return PPGN.load_from_checkpoint(path, weights_only=True).eval()


def parity(batch: Batch) -> Tensor:
    return batch["label"] % 2


def thickness(batch: Batch) -> Tensor:
    """0 for a thin digit, 1 for a thick one, -1 for those between."""
    measured = stroke_thickness(batch["image"].squeeze(1))
    thin, thick = THICKNESS_LIMITS
    return (measured >= thick).long() - ((measured >= thin) & (measured < thick)).long()


def trained(seed: int, kind: Callable[[Batch], Tensor]) -> nn.Module:
    """A classifier of two kinds of training digits, on blurred and binarised ones as well; four epochs."""
    torch.manual_seed(seed)
    data = DigitsDataModule(batch_size=50)
    data.setup("fit")
    network = nn.Sequential(DigitNetwork(), nn.ReLU(), nn.Linear(10, 2))
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    blur = DigitClassifier()
    for _ in range(4):
        for batch in data.train_dataloader():
            kinds = kind(batch)
            loss = F.cross_entropy(network(blur.redraw(batch["image"]))[kinds >= 0], kinds[kinds >= 0])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


@pytest.mark.parametrize("kind", [parity, thickness])
def test_other_classifiers_steer_without_retraining(kind: Callable[[Batch], Tensor], model: PPGN) -> None:
    """At least nine in ten are read as asked by a classifier of other weights than the one that steered."""
    asked = torch.arange(200) % 2
    steering, reader = trained(3, kind), trained(4, kind)
    images = model.sample(200, {"label": asked}, network=steering, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        read = (reader(images).argmax(1) == asked).float().mean().item()
    print(f"\n{kind.__name__}: {100 * read:.1f} % of 200 are read as asked")
    assert read >= 0.9
