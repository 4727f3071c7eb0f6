"""The judge of attributes: its losses, what it refuses, and that it learns."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from lightning_gen.datamodules import CaptionedDigitsDataModule
from lightning_gen.errors import DataError
from lightning_gen.metrics import AttributeAgreement, Samples
from lightning_gen.models import AttributeClassifier
from lightning_gen.nn import AttributeFeatures, DigitFeatures
from tests.digits import quiet_trainer


def test_each_attribute_has_outputs_of_its_own() -> None:
    model = AttributeClassifier((1, 8, 8), {"shape": 3, "size": 2}, 2, 4)
    logits = torch.tensor([[0.0, 2.0, 1.0, 5.0, 4.0], [3.0, 2.0, 1.0, 0.0, 1.0]])
    assert model.network.read(logits).tolist() == [[1, 0], [0, 1]]
    values = torch.tensor([[2, 0], [0, 0]])
    expected = [F.cross_entropy(logits[:, :3], values[:, 0]), F.cross_entropy(logits[:, 3:], values[:, 1])]
    torch.testing.assert_close(model.losses(logits, values), torch.stack(expected))
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 5)


def test_faults_are_named() -> None:
    model = AttributeClassifier((1, 8, 8), {"shape": 3, "size": 2}, 2, 4)
    image = torch.rand(2, 1, 8, 8)
    with pytest.raises(DataError, match=r"attributes, integers of shape \(N, 2\); the batch has only \['image'\]"):
        model.check_batch({"image": image})
    with pytest.raises(DataError, match=r"'size' has values in \[0, 2\]; expected 0 to 1"):
        model.check_batch({"image": image, "attributes": torch.tensor([[0, 0], [0, 2]])})


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier after two epochs."""
    torch.manual_seed(0)
    trainer = quiet_trainer(max_epochs=2, limit_val_batches=0)
    trainer.fit(AttributeClassifier(base_channels=8, lr=0.01), datamodule=CaptionedDigitsDataModule())
    path = tmp_path_factory.mktemp("reader") / "last.ckpt"
    trainer.save_checkpoint(path)
    return path


def test_learns(reader: Path) -> None:
    """Far over the most frequent value of each attribute, on the test images."""
    model = AttributeClassifier.load_from_checkpoint(reader, weights_only=True)
    data = CaptionedDigitsDataModule()
    (scores,) = quiet_trainer().test(model, data, verbose=False)
    for name, share in {"digit": 0.5, "thickness": 0.5, "slant": 0.7, "colour": 0.95, "position": 0.95}.items():
        assert scores[f"test/{name}"] > share


def test_agreement_counts_what_was_asked_for(reader: Path) -> None:
    data = CaptionedDigitsDataModule()
    data.setup()
    batch = data.datasets["test"].__getitems__(range(400))
    extractor = AttributeFeatures(str(reader))
    found = extractor.network.read(extractor.network(batch["image"]))
    samples = Samples(batch["image"], *extractor(batch["image"]))
    assert torch.equal(samples.logits.argmax(1), found[:, 0])
    for place, name in enumerate(extractor.names):
        right = (found == batch["attributes"])[:, place]
        for part, rows in {"all": slice(None), "seen": ~batch["held_out"], "held_out": batch["held_out"]}.items():
            metric = AttributeAgreement(name, part)  # type: ignore[arg-type]
            metric.bind(extractor)
            metric.update(samples, batch)
            assert metric.compute().item() == pytest.approx(right[rows].double().mean().item())
    with pytest.raises(DataError, match="it needs AttributeFeatures"):
        AttributeAgreement("digit").bind(DigitFeatures())
    with pytest.raises(DataError, match=r"'size'.* knows digit, thickness, slant, colour, position"):
        AttributeAgreement("size").bind(extractor)
