"""The network that reads labels from photographs, and the scores by which it judges others."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from lightning_gen.callbacks import SampleEvaluation
from lightning_gen.datamodules import EdgesToDigitsDataModule
from lightning_gen.errors import CheckpointError, DataError
from lightning_gen.functional import label_confusion, label_scores
from lightning_gen.metrics import LabelScore
from lightning_gen.models import LabelReader, Pix2Pix
from lightning_gen.nn import DigitFeatures, LabelFeatures, LabelNetwork
from tests.digits import quiet_trainer

PALETTE = ((0, 0, 255), (255, 0, 0), (255, 255, 0))


def maps_and_photographs(number: int) -> dict[str, Tensor]:
    """Real digits as photographs; black, grey and white of them, in the palette's colours, as maps."""
    data = EdgesToDigitsDataModule()
    data.setup()
    images = data.datasets["train"].__getitems__(range(number))["image"]
    labels = (images[:, 0] > 0.2).long() + (images[:, 0] > 0.7).long()
    return {"image": images, "source": colours(labels), "label": labels}


def colours(labels: Tensor) -> Tensor:
    return (torch.tensor(PALETTE) / 255)[labels].movedim(-1, 1)


def test_scores_of_a_confusion_by_hand() -> None:
    """Label 3 has no pixel, and one pixel is read as it."""
    labels, predicted = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 1, 1, 3, 2])
    confusion = label_confusion(predicted, labels, 4)
    assert confusion.tolist() == [[2, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]]
    scores = label_scores(confusion)
    assert scores.pixel_accuracy.item() == pytest.approx(4 / 6)
    assert scores.class_accuracy.item() == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert scores.iou.item() == pytest.approx((2 / 3 + 1 / 3 + 1) / 3)


def test_scores_equal_torchmetrics() -> None:
    torch.manual_seed(0)
    labels, predicted = torch.randint(5, (2, 4, 9, 9))
    scores = label_scores(label_confusion(predicted, labels, 5))
    assert scores.pixel_accuracy.item() == pytest.approx(
        MulticlassAccuracy(5, average="micro")(predicted, labels).item()
    )
    assert scores.class_accuracy.item() == pytest.approx(MulticlassAccuracy(5)(predicted, labels).item())
    assert scores.iou.item() == pytest.approx(MulticlassJaccardIndex(5)(predicted, labels).item())


def test_labels_are_those_of_the_nearest_colour() -> None:
    torch.manual_seed(0)
    network = LabelNetwork(1, PALETTE, 4)
    labels = torch.randint(3, (2, 6, 6))
    noisy = colours(labels) + 0.3 * torch.rand(2, 3, 6, 6) - 0.15  # As a JPEG has it.
    assert torch.equal(network.labels_of(noisy), labels)


def test_reading_keeps_the_size_and_sees_far() -> None:
    network = LabelNetwork(3, PALETTE, 4).eval()
    images = torch.rand(1, 3, 80, 72, requires_grad=True)
    logits = network(images)
    assert logits.shape == (1, 3, 80, 72)
    (gradient,) = torch.autograd.grad(logits[0, :, 40, 36].sum(), images)
    rows = gradient[0].abs().sum((0, 2)).nonzero()
    assert 40 < (rows.max() - rows.min() + 1).item() <= 2 * (1 + 1 + 2 + 4 + 8 + 16) + 1


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader that has learned on 600 digits."""
    torch.manual_seed(0)
    rows = maps_and_photographs(600)
    loader = torch.utils.data.DataLoader(
        [{key: values[i : i + 20] for key, values in rows.items()} for i in range(0, 600, 20)], batch_size=None
    )
    model = LabelReader((1, 32, 32), PALETTE, base_channels=8, lr=1e-2)
    trainer = quiet_trainer(max_epochs=5)
    trainer.fit(model, loader, loader)
    path = tmp_path_factory.mktemp("reader") / "reader.ckpt"
    trainer.save_checkpoint(path)
    return path


def test_learns_to_read(checkpoint: Path) -> None:
    """Baseline: the most frequent label everywhere. And its figures are those of its own reading."""
    rows = maps_and_photographs(700)
    held_out = {key: values[600:] for key, values in rows.items()}
    model = LabelReader.load_from_checkpoint(checkpoint)
    loader = torch.utils.data.DataLoader([held_out], batch_size=None)
    (figures,) = quiet_trainer().test(model, loader, verbose=False)
    with torch.no_grad():
        expected = label_scores(label_confusion(model.eval()(held_out["image"]).argmax(1), held_out["label"], 3))
    for name, value in expected._asdict().items():
        assert figures[f"test/{name}"] == pytest.approx(value.item(), rel=1e-6)
    assert figures["test/class_accuracy"] > 0.8  # 1/3 for the most frequent label.
    assert figures["test/pixel_accuracy"] > (held_out["label"] == 0).double().mean() + 0.05


def test_real_photographs_are_read_and_blurred_ones_are_not(checkpoint: Path) -> None:
    """The metric on a model's samples: one that hands over the real photographs, and one that blurs them."""
    rows = maps_and_photographs(100)
    model = LabelReader.load_from_checkpoint(checkpoint).eval()
    extractor = LabelFeatures(str(checkpoint))

    class Oracle(Pix2Pix):
        def translate(self, source: Tensor, generator: torch.Generator | None = None) -> Tensor:
            return self.blur(rows["image"][: len(source)])

    values = {}
    for name, blur in {"real": torch.clone, "blurred": lambda x: F.avg_pool2d(x, 9, 1, 4)}.items():
        oracle = Oracle((1, 32, 32), source_channels=3, num_levels=3, base_channels=2, patch_size=16)
        oracle.blur = blur
        metrics = [LabelScore(score) for score in ("pixel_accuracy", "class_accuracy", "iou")]
        evaluation = SampleEvaluation(metrics, num_samples=100, extractor=extractor, batch_size=100)
        loader = torch.utils.data.DataLoader([rows], batch_size=None)
        quiet_trainer(callbacks=[evaluation], default_root_dir=checkpoint.parent).validate(
            oracle, loader, verbose=False
        )
        values[name] = {figure.name: figure.value for figure in evaluation.figures}
    with torch.no_grad():
        expected = label_scores(label_confusion(model(rows["image"]).argmax(1), rows["label"], 3))
    assert values["real"] == {f"val/{k}_labels": pytest.approx(v.item()) for k, v in expected._asdict().items()}
    assert values["blurred"]["val/iou_labels"] < values["real"]["val/iou_labels"] - 0.2


def test_wrong_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="reads the labels in source"):
        LabelReader((1, 32, 32), PALETTE).as_batch({"image": torch.zeros(1, 1, 32, 32)})
    with pytest.raises(DataError, match="it needs LabelFeatures"):
        LabelScore().bind(DigitFeatures())
    (tmp_path / "other.ckpt").write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="no checkpoint of a LabelReader"):
        LabelFeatures(str(tmp_path / "other.ckpt"))
    with pytest.raises(CheckpointError, match="no checkpoint of a LabelReader"):
        LabelFeatures(str(tmp_path / "missing.ckpt"))
