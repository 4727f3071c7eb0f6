"""One judge for everybody: the same images get the same scores, whoever gives them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_gen import judge
from lightning_gen._lightning import pl
from lightning_gen.callbacks import ClosestPairs, SampleEvaluation, SampleGrid
from lightning_gen.callbacks.files import write_png
from lightning_gen.callbacks.foreign import Foreign
from lightning_gen.cli import main
from lightning_gen.datamodules import DigitsDataModule
from lightning_gen.errors import DataError, LightningGenError
from lightning_gen.metrics import FrechetDistance, Precision
from lightning_gen.nn import DigitFeatures
from tests.conftest import QUIET
from tests.digits import training_digits

REAL = training_digits()[:400]
MADE = (training_digits()[400:700] * 0.9 * 255).round() / 255


def values(figures: dict[str, Any]) -> dict[str, float]:
    return {name: figure.value for name, figure in figures.items()}


class Own(pl.LightningModule):
    """A model of another project, in its first lesson."""

    def __init__(self) -> None:
        super().__init__()
        self.shade = nn.Parameter(torch.zeros(()))
        self.drop = nn.Dropout(0.9)

    def sample(self, n: int) -> Tensor:
        return self.drop(torch.rand(n, 1, 28, 28)) * torch.sigmoid(self.shade)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return (batch[0].mean() - torch.sigmoid(self.shade)) ** 2

    def validation_step(self, batch: Any, batch_idx: int) -> None: ...

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_images_have_their_scores_wherever_they_are(tmp_path: Path) -> None:
    for index, image in enumerate(MADE):
        write_png(image, tmp_path / "made" / f"{index}.png")
    for index, image in enumerate(REAL):
        write_png(image, tmp_path / "real" / f"{index}.png")
    loader = DataLoader(TensorDataset(MADE, torch.zeros(len(MADE))), batch_size=64)
    expected = judge(MADE, REAL, extractor="digits", metrics=["fid", Precision()])
    assert list(expected) == ["fid_digits", "precision_digits"]
    assert expected["fid_digits"].protocol.startswith("300 samples on digits, 400 val images")
    direct = FrechetDistance()
    extractor = DigitFeatures()
    direct.bind(extractor)
    from lightning_gen.metrics import Samples

    direct.update(Samples(REAL, *extractor(REAL)), role="reference")
    direct.update(Samples(MADE, *extractor(MADE)))
    assert expected["fid_digits"].value == pytest.approx(direct.compute().item(), rel=1e-4)
    for source, real in (
        (str(tmp_path / "made"), REAL),
        (loader, DataLoader(TensorDataset(REAL), batch_size=100)),
        (tmp_path / "made", tmp_path / "real"),
    ):
        found = judge(source, real, extractor=extractor, metrics=["fid", Precision()])
        assert values(found) == pytest.approx(values(expected), rel=1e-4)


def test_anything_that_draws_is_judged(tmp_path: Path) -> None:
    data = DigitsDataModule(batch_size=250)
    seen = judge(lambda n: MADE[torch.randint(len(MADE), (n,))], data, extractor="digits", num_samples=300)
    assert {"fid_digits", "kid_digits", "recall_digits", "memorized_digits", "parzen"} <= set(seen)
    assert seen["fid_digits"].real is not None
    assert seen["fid_digits"].value > seen["fid_digits"].real
    before = torch.get_rng_state()
    first, again = (judge(Own(), REAL, train=MADE, extractor="digits", num_samples=50, seed=3) for _ in range(2))
    assert values(first) == values(again)
    assert values(first) != values(judge(Own(), REAL, train=MADE, extractor="digits", num_samples=50, seed=4))
    assert torch.equal(torch.get_rng_state(), before)

    model = ["--model", "VAE", "--model.hidden_size", "9", "--data", "DigitsDataModule"]
    options = ["--data.binarization=dynamic", "--trainer.limit_train_batches=1", "--trainer.max_epochs=1"]
    main(["fit", *model, *options, *QUIET, "--trainer.default_root_dir", str(tmp_path)])
    (path,) = tmp_path.rglob("last.ckpt")
    assert "mmd_p_value" in judge(path, DigitsDataModule(binarization="dynamic"), num_samples=20)


def test_a_graph_is_judged(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    network = nn.Sequential(nn.Linear(5, 784), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28)))
    rows = {"z": {0: torch.export.Dim("n", min=1)}}
    program: Any = torch.onnx.export(
        network, (torch.zeros(2, 5),), dynamo=True, input_names=["z"], dynamic_shapes=(rows["z"],), verbose=False
    )
    program.save(tmp_path / "gen.onnx", external_data=False)
    found = judge(tmp_path / "gen.onnx", REAL, metrics=["fid"], extractor="digits", num_samples=100)
    with torch.no_grad():
        other = judge(lambda n: network(torch.randn(n, 5)), REAL, metrics=["fid"], extractor="digits", num_samples=100)
    assert values(found) == pytest.approx(values(other), rel=1e-3)


def test_callbacks_take_a_model_of_another_project(tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(REAL[:100]), batch_size=50)
    evaluation = SampleEvaluation([FrechetDistance()], 100, DigitFeatures())
    grid = SampleGrid(4)
    trainer = pl.Trainer(
        max_epochs=1,
        callbacks=[evaluation, grid, ClosestPairs(50)],
        accelerator="cpu",
        default_root_dir=tmp_path,
        enable_progress_bar=False,
    )
    model = Own()
    trainer.fit(model, loader, loader)
    assert [figure.name for figure in evaluation.figures] == ["val/fid_digits"]
    assert trainer.callback_metrics["val/fid_digits"] == pytest.approx(evaluation.figures[0].value)
    assert grid.pictures[0].is_file()
    assert model.training


def test_a_generator_decides_what_another_projects_model_draws() -> None:
    """Whatever has been drawn before, as on another rank; and goes on from one call to the next."""
    model, generator = Foreign(Own()), torch.Generator().manual_seed(5)
    first = model.sample(3, generator=torch.Generator().manual_seed(5))
    torch.rand(9)
    assert torch.equal(first, model.sample(3, generator=generator))
    assert not torch.equal(first, model.sample(3, generator=generator))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda n: torch.zeros(n, 28, 28), r"function was asked for 100 samples and gave \(100, 28, 28\); expected"),
        (lambda n: torch.zeros(3, 1, 28, 28), r"gave \(3, 1, 28, 28\); expected a tensor \(100, C, H, W\)"),
        (lambda n: None, "gave NoneType"),
        (lambda n: torch.zeros(n, 1, 28, 28).byte(), "gave samples of torch.uint8; expected floats"),
        (lambda n: torch.rand(n, 1, 28, 28) * 2 - 1, r"only \[0, 1\] is scored"),
        (
            lambda n: torch.rand(n, 1, 8, 8),
            r"The samples have the shape \(1, 8, 8\), the held-out images \(1, 28, 28\)",
        ),
    ],
)
def test_what_is_no_image_is_named(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        judge(source, REAL, extractor="digits", metrics=["fid"], num_samples=100)


def test_what_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(LightningGenError, match="int gives no images; expected a folder"):
        judge(3, REAL)
    with pytest.raises(LightningGenError, match=r"There is no metric 'fld'; did you mean fid\?"):
        judge(MADE, REAL, metrics=["fld"])
    with pytest.raises(LightningGenError, match=r"There is no extractor 'digit'; known are .*digits"):
        judge(MADE, REAL, extractor="digit")
    with pytest.raises(DataError, match="num_samples is 900; there are 1 to 300 images"):
        judge(MADE, REAL, num_samples=900)
