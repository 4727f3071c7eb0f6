"""The captioner: what a text's probability is a sum of, what it depends on, what is kept, and that it learns."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gen.datamodules import CaptionedDigitsDataModule
from lightning_gen.errors import CheckpointError, ConditionError, DataError
from lightning_gen.functional.captions import read_digit_caption
from lightning_gen.models import Captioner
from tests.digits import quiet_trainer

TEXTS = ["a b", "c", "b a c"]


@pytest.fixture
def tiny() -> Captioner:
    torch.manual_seed(0)
    sizes = {"base_channels": 2, "feature_dim": 3, "embedding_dim": 4, "hidden_size": 5}
    return Captioner((1, 8, 8), ["a", "b", "c"], max_words=4, **sizes).double().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def all_texts(length: int) -> list[str]:
    """Every text of 1 to `length` of the words a, b and c."""
    texts: list[list[str]] = [[]]
    found: list[list[str]] = []
    for _ in range(length):
        texts = [[*text, word] for text in texts for word in "abc"]
        found += texts
    return [" ".join(text) for text in found]


def test_probabilities_of_all_texts_and_of_no_end_sum_to_one(tiny: Captioner, images: Tensor) -> None:
    """The texts of up to three words, the empty one, and all that go on after three words."""
    texts = all_texts(3)
    one = images[:1]
    ended = tiny.log_prob(one.expand(len(texts), -1, -1, -1), texts).exp().sum()
    assert tiny.network is not None
    features = tiny.network.image(one)
    logits = tiny.network(features, torch.zeros(1, 1, dtype=torch.long))[:, 0]
    empty = logits.softmax(1)[0, 0]
    longer = [text for text in texts if len(text.split()) == 3]
    parts = tiny.word_log_probs(features.expand(len(longer), -1), tiny.encode(longer))
    going_on = parts[:, :3].sum(1).exp() * (1 - parts[:, 3].exp())
    assert (ended + empty + going_on.sum()).item() == pytest.approx(1, abs=1e-12)


def test_a_text_is_the_sum_of_its_words_and_its_end(tiny: Captioner, images: Tensor) -> None:
    """By feeding the network one text alone, so that nothing is padded."""
    assert tiny.network is not None
    for image, text, score in zip(images, TEXTS, tiny.log_prob(images, TEXTS), strict=True):
        numbers = [0, *(" abc".index(word) for word in text.split()), 0]
        logits = tiny.network(tiny.network.image(image[None]), torch.tensor(numbers[:-1])[None])[0]
        single = logits.log_softmax(1)[range(len(numbers) - 1), numbers[1:]]
        assert len(single) == len(text.split()) + 1
        torch.testing.assert_close(single.sum(), score)


def test_the_gradient_is_the_sum_of_those_of_single_words(tiny: Captioner, images: Tensor) -> None:
    images.requires_grad_()
    (whole,) = torch.autograd.grad(tiny.log_prob(images, TEXTS).sum(), images)
    assert tiny.network is not None
    parts = tiny.word_log_probs(tiny.network.image(images), tiny.encode(TEXTS))
    assert parts.shape == (3, 4)
    assert (parts[1, 2:] == 0).all()  # What pads a text counts nothing.
    singles = [torch.autograd.grad(parts[:, t].sum(), images, retain_graph=True)[0] for t in range(4)]
    torch.testing.assert_close(sum(singles), whole)
    assert (whole.flatten(1).abs().amax(1) > 0).all()


def test_the_first_layer_reads_words_alone(tiny: Captioner, images: Tensor) -> None:
    """Factored: with the image's weights gone from the second layer, nothing of the image is left."""
    assert tiny.network is not None
    before = tiny.log_prob(images[:1], ["a b"]), tiny.log_prob(images[1:2], ["a b"])
    assert (before[0] - before[1]).abs() > 1e-6
    with torch.no_grad():
        tiny.network.joint.get_parameter("weight_ih_l0")[:, 5:] = 0
    torch.testing.assert_close(tiny.log_prob(images[:1], ["a b"]), tiny.log_prob(images[1:2], ["a b"]))


def test_published_sizes() -> None:
    """Embeddings without a bias, 4H(I + H + 2) in each LSTM, an output for each of 8,801 tokens."""
    model = Captioner((3, 32, 32), [f"w{i}" for i in range(8800)])
    network = model.network
    assert network is not None
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    assert count["words"] == 8801 * 1000
    assert count["language"] == 4000 * (1000 + 1000 + 2)
    assert count["joint"] == 4000 * (2000 + 1000 + 2)
    assert count["head"] == 8801 * 1001
    assert model.max_words == 20


def test_describing_follows_the_probabilities(tiny: Captioner, images: Tensor) -> None:
    """A text drawn is as frequent as it is probable; the greedy one takes the most probable word each time."""
    one = images[:1]
    drawn = tiny.describe(one.expand(4000, -1, -1, -1), torch.Generator().manual_seed(0), greedy=False)
    for text in ("a", "b c"):
        expected = tiny.log_prob(one, [text]).exp().item()
        assert drawn.count(text) / 4000 == pytest.approx(expected, abs=4 * (expected / 4000) ** 0.5)
    (greedy,) = tiny.describe(one)
    assert tiny.network is not None
    words: list[int] = []
    while len(words) < 4:
        logits = tiny.network(tiny.network.image(one), torch.tensor([[0, *words]]))[0, -1]
        if not logits.argmax():
            break
        words.append(int(logits.argmax()))
    assert greedy == " ".join(" abc"[word] for word in words)


def test_vocabulary_and_figures_of_the_trivial() -> None:
    batches: list[dict[str, Any]] = [
        {"image": torch.zeros(2, 1, 8, 8), "caption": [["a red, red seven", "A seven!"], ["a seven"]]}
    ]
    model = Captioner((1, 8, 8), None, 2, 3, 4, 5)
    with pytest.raises(CheckpointError, match="no words yet; train it"):
        model.log_prob(batches[0]["image"], ["a", "a"])
    model.read_vocabulary(batches)
    assert model.vocabulary == ["a", "red", "seven"]
    torch.testing.assert_close(model.frequencies, torch.tensor([3.0, 3.0, 2.0, 3.0]) / 11)  # Ends first.
    assert model.decode(model.common[None]) == ["a seven"]


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        (["a d", "a"], "holds 'd', which the captioner never saw"),
        (["a", " "], "' ' has 0 words; expected 1 to 4"),
        (["a b c a b", "a"], "has 5 words; expected 1 to 4"),
        (["a"], "1 captions for 2 images"),
        ("ab", "One text was given, 'ab'"),
    ],
)
def test_wrong_captions_are_named(tiny: Captioner, images: Tensor, captions: Any, message: str) -> None:
    with pytest.raises(ConditionError, match=message):
        tiny.log_prob(images[:2], captions)


def test_images_without_captions_are_named(tiny: Captioner, images: Tensor) -> None:
    with pytest.raises(DataError, match="needs 'caption'"):
        tiny.as_batch({"image": images})
    with pytest.raises(DataError, match="image 1 of a batch has no caption"):
        tiny.as_batch({"image": images, "caption": [["a"], [], ["b"]]})


def test_captions_are_read_back() -> None:
    loader: Any = CaptionedDigitsDataModule(batch_size=50).test_dataloader()
    batch = next(iter(loader))
    for values, captions in zip(batch["attributes"].tolist(), batch["caption"], strict=True):
        assert {read_digit_caption(text) for text in captions} == {tuple(values)}


def test_it_learns_and_a_checkpoint_keeps_the_words(tmp_path: Path) -> None:
    """Below a third of the unigram's perplexity, and twice as often right as the most frequent caption.

    Most of the perplexity left is the choice of a form and of synonyms, which no image tells.
    """
    torch.manual_seed(0)
    model = Captioner((1, 28, 28), None, 8, 32, 16, 48, lr=5e-3)
    trainer = quiet_trainer(max_epochs=4, limit_val_batches=4)
    data = CaptionedDigitsDataModule(plain=True, zero_shot=None, batch_size=50)
    trainer.fit(model, datamodule=data)
    figures = trainer.callback_metrics
    assert figures["val/perplexity"] < figures["val/perplexity_unigram"] / 3
    assert figures["val/attributes"] > 2 * figures["val/attributes_common"]

    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = Captioner.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True).eval()
    assert loaded.vocabulary == model.vocabulary
    data.batch_size = 4
    loader: Any = data.test_dataloader()
    batch = next(iter(loader))
    texts = [row[0] for row in batch["caption"]]
    scores = model.eval().log_prob(batch["image"], texts)
    assert torch.equal(loaded.log_prob(batch["image"], texts), scores)
    wrong = loaded.log_prob(batch["image"].roll(1, 0), texts)
    assert scores.mean() > wrong.mean() + 0.5  # Its own image makes a text more probable.
    assert loaded.predict_step(batch, 0) == model.describe(batch["image"])
