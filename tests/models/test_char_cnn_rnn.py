"""Exact tests of the character encoder and its joint embedding, and a real training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gen.datamodules import CaptionedDigitsDataModule
from lightning_gen.errors import CheckpointError, ConditionError, DataError
from lightning_gen.models import AttributeClassifier, CharCNNRNN
from lightning_gen.models.char_cnn_rnn import (
    ALPHABET,
    MeanGRU,
    MeanRNN,
    encode_characters,
    joint_embedding_loss,
    one_hot,
    retrieve,
)
from lightning_gen.nn import AttributeFeatures, FeatureExtractor, Features
from tests.digits import quiet_trainer


class Given(FeatureExtractor):
    """Features that stand in the first pixels."""

    name, num_features, num_classes = "given", 6, 6

    def __init__(self) -> None:
        super().__init__(nn.Identity())

    def _extract(self, images: Tensor) -> Features:
        features = images.flatten(1)[:, :6]
        return Features(features, features)


def small(**arguments: Any) -> CharCNNRNN:
    torch.manual_seed(0)
    given = {"channels": (4, 5, 6), "text_dim": 6, "extractor": f"{__name__}.Given", "image_shape": (1, 4, 4)}
    return CharCNNRNN(**{**given, **arguments})


# Characters ---------------------------------------------------------------------------------------------------------


def test_alphabet() -> None:
    assert len(ALPHABET) == 70
    assert len(set(ALPHABET)) == 69
    assert ALPHABET.endswith("{} ")
    hot = one_hot(encode_characters(["a-Z "]))
    assert hot.shape == (1, 70, 201)
    assert hot.sum() == 4
    assert hot[0, :, :4].argmax(0).tolist() == [0, 59, 25, 69]
    assert hot[0, 36].sum() == 0  # The hyphen's first place never fires.
    assert hot[0, :, 4:].sum() == 0


def test_what_the_alphabet_has_not() -> None:
    with pytest.warns(UserWarning, match="'é鳥', which the alphabet has not") as caught:
        rows = encode_characters(["aé鳥b", "é"])
    assert len(caught) == 1
    assert rows[0, :5].tolist() == [0, -1, -1, 1, -1]
    with pytest.raises(ConditionError, match="'é'"):
        encode_characters(["é"], strict=True)
    with pytest.raises(ConditionError, match="empty"):
        encode_characters(["a", "  "])
    with pytest.warns(UserWarning, match="has 250 characters; the encoder reads the first 201"):
        long = encode_characters(["b" * 250])
    assert long.shape == (1, 201)


# Networks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "number", "steps"), [("rnn_256", 1_814_144, 8), ("rnn_512", 2_994_560, 8), ("gru_512", 4_045_184, 18)]
)
def test_published_sizes(variant: Any, number: int, steps: int) -> None:
    with torch.device("meta"):
        model = CharCNNRNN(variant=variant)
        assert sum(parameter.numel() for parameter in model.parameters()) == number
        lengths, maps = [], torch.zeros(2, 70, 201)
        for layer in model.convolutions:
            maps = layer(maps)
            lengths.append(maps.shape[2])
    assert lengths[:1] + lengths[2:4] + lengths[5:7] == [198, 66, 63, 21, 18]
    assert lengths[-1] == steps


def test_recurrence_by_hand() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 3)
    rnn = MeanRNN(3)
    w, u = rnn.input, rnn.hidden
    first = w(x[:, :, 0]).clamp(min=0)
    second = (w(x[:, :, 1]) + u(first)).clamp(min=0)
    third = (w(x[:, :, 2]) + u(second)).clamp(min=0)
    torch.testing.assert_close(rnn(x), (first + second + third) / 3)

    gru = MeanGRU(3)
    parts = [nn.functional.linear(x[:, :, t], gru.input.weight, gru.input.bias).split(3, 1) for t in range(3)]
    state = parts[0][0].tanh()
    states = [state]
    for value, update, reset in parts[1:]:
        z = 1 / (1 + (-update - state @ gru.gates.weight[:3].T - gru.gates.bias[:3]).exp())
        r = 1 / (1 + (-reset - state @ gru.gates.weight[3:].T - gru.gates.bias[3:]).exp())
        candidate = torch.tanh(value + (r * state) @ gru.hidden.weight.T + gru.hidden.bias)
        state = z * candidate + (1 - z) * state
        states.append(state)
    torch.testing.assert_close(gru(x), sum(states) / 3)


def test_a_text_stands_for_itself() -> None:
    """Capitals do not matter, neighbours neither; the rest does."""
    model = small()
    texts = ["a red seven", "A RED seven", "a red eleven"]
    vectors = model(texts)
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.allclose(vectors[0], vectors[2])
    torch.testing.assert_close(model(texts[2:]), vectors[2:])


def test_prediction_is_the_mean_of_an_images_captions() -> None:
    model = small()
    texts = ["a red seven", "seven in red", "a blue one"]
    expected = model(texts)
    found = model.predict_step({"image": torch.rand(2, 1, 4, 4), "caption": [texts[:2], texts[2]]}, 0)
    torch.testing.assert_close(found, torch.stack([expected[:2].mean(0), expected[2]]))


# The loss -----------------------------------------------------------------------------------------------------------


def test_loss_by_hand() -> None:
    scores = torch.tensor([[2.0, 1.5, -9.0], [0.0, 0.5, 0.0], [5.0, -3.0, 4.0]])
    by_hand = 0.0
    for i in range(3):
        for j in range(3):
            if i != j:
                own = scores[i, i].item()
                by_hand += max(0.0, 1 + scores[i, j].item() - own) + max(0.0, 1 + scores[j, i].item() - own)
    assert joint_embedding_loss(scores).item() == pytest.approx(by_hand / 9)
    torch.testing.assert_close(joint_embedding_loss(scores), joint_embedding_loss(scores.T))
    assert joint_embedding_loss(torch.eye(4)).item() == 0
    assert joint_embedding_loss(torch.eye(4) * 0.9).item() == pytest.approx(0.1 * 24 / 16)


def test_classes_of_a_batch_are_distinct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of images of one class the first one learns."""
    model = small()
    model.setup("test")
    model.log = lambda *args, **kwargs: None  # type: ignore[method-assign, assignment]
    seen: list[Tensor] = []
    monkeypatch.setattr(
        "lightning_gen.models.char_cnn_rnn.joint_embedding_loss", lambda scores: seen.append(scores) or scores.sum()
    )
    images = torch.rand(5, 1, 4, 4)
    attributes = torch.tensor([[3, 1], [0, 2], [3, 1], [0, 1], [0, 2]])
    captions = [["first"], ["second"], ["third"], ["fourth"], ["fifth"]]
    model.training_step({"image": images, "caption": captions, "attributes": attributes}, 0)
    rows = [3, 1, 0]  # In the order of the classes.
    torch.testing.assert_close(seen[0], images.flatten(1)[rows, :6] @ model([captions[row][0] for row in rows]).T)
    model.training_step({"image": images, "caption": captions, "label": attributes[:, 1]}, 0)
    assert seen[1].shape == (2, 2)


def test_retrieval_is_among_other_classes() -> None:
    """What is of the same class is never a rival; the best of the others wins if it is better."""
    classes = torch.tensor([[0], [0], [1], [2]])
    scores = torch.zeros(4, 4)
    scores[0, 1], scores[2, 3], scores[2, 2] = 9.0, 3.0, 2.0
    scores[0, 0], scores[1, 1], scores[3, 3] = 1.0, 1.0, 1.0
    assert retrieve(scores, classes).tolist() == [0, 1, 3, 3]
    many = torch.arange(200)[:, None]
    assert (retrieve(torch.zeros(200, 200) - torch.eye(200), many) != many.squeeze(1)).all()


# Bad input ----------------------------------------------------------------------------------------------------------


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"give --model\.extractor"):
        small(extractor=None).setup("test")
    with pytest.raises(DataError, match=r"have 6 features; give --model\.text_dim 6"):
        small(text_dim=7).setup("test")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint of an AttributeClassifier"):
        AttributeFeatures(str(tmp_path / "none.ckpt"))
    model = small()
    with pytest.raises(DataError, match="needs captions"):
        model.as_batch({"image": torch.rand(2, 1, 4, 4), "label": torch.zeros(2)})
    with pytest.raises(DataError, match="by attributes or labels"):
        model.as_batch({"image": torch.rand(2, 1, 4, 4), "caption": ["a", "b"]})


# Learning -----------------------------------------------------------------------------------------------------------


def test_learns_beside_a_classifier(tmp_path: Path) -> None:
    """A classifier of one epoch sees the images; chance finds one caption in fifty."""
    torch.manual_seed(0)
    data = CaptionedDigitsDataModule(batch_size=50)
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0)
    trainer.fit(AttributeClassifier(base_channels=8, num_features=32, lr=0.01), datamodule=data)
    path = tmp_path / "classifier.ckpt"
    trainer.save_checkpoint(path)
    extractor = f"{AttributeFeatures.__module__}.{AttributeFeatures.__qualname__}"
    model = CharCNNRNN(
        (3, 32, 32), "rnn_256", (16, 24, 32), 32, extractor, {"ckpt_path": str(path)}, ("digit",), lr=5e-3
    )
    trainer = quiet_trainer(max_epochs=9, limit_val_batches=0)
    trainer.fit(model, datamodule=data)
    (scores,) = trainer.test(model, data, verbose=False)
    assert scores["test/retrieval"] > 0.15
    assert 0 < scores["test/wrong_digit"] < 0.9
