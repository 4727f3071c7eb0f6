"""Exact tests of the captioner, and a real training."""

from typing import Any

import pytest
import torch
import yaml

from lightning_gen.datamodules import CaptionedDigitsDataModule
from lightning_gen.errors import ConditionError, DataError
from lightning_gen.models import Captioner
from lightning_gen.models.captioner import words_of
from lightning_gen.recipes import recipe_folder
from tests.digits import quiet_trainer

WORDS = ["a", "thick", "thin", "two", "three"]


def small(**arguments: Any) -> Captioner:
    torch.manual_seed(0)
    given = {"image_shape": (1, 8, 8), "base_channels": 2, "num_features": 3, "embedding_dim": 4, "hidden_size": 5}
    return Captioner(**{"vocabulary": WORDS, **given, **arguments}).double().eval()


def test_probabilities_of_all_captions_sum_to_one() -> None:
    """Captions of up to three words of two, and the mass of the longer ones."""
    model = small(vocabulary=["a", "b"])
    image = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    captions, whole = [[]], 0.0
    for _ in range(4):
        for words in captions:
            tokens = torch.tensor([[0, *words]])
            prefix = model(image, tokens).log_softmax(2)[0]
            told = sum(prefix[place, word].item() for place, word in enumerate(words))
            whole += torch.tensor(told + prefix[len(words), 0].item()).exp().item()
        captions = [[*words, word] for words in captions for word in (1, 2)]
    longer = 0.0
    for words in captions:
        prefix = model(image, torch.tensor([[0, *words]])).log_softmax(2)[0]
        longer += torch.tensor(sum(prefix[place, word].item() for place, word in enumerate(words))).exp().item()
    assert whole + longer == pytest.approx(1)
    text = model.log_prob(image, ["b a"]).item()
    prefix = model(image, torch.tensor([[0, 2, 1]])).log_softmax(2)[0]
    assert text == pytest.approx((prefix[0, 2] + prefix[1, 1] + prefix[2, 0]).item())


def test_padding_counts_for_nothing() -> None:
    model = small()
    images = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    captions = ["a thick two", "thin"]
    both = model.log_prob(images, captions)
    alone = torch.cat([model.log_prob(images[i : i + 1], captions[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(both, alone)
    words = model.word_log_probs(images, captions)
    assert words.shape == (2, 4)
    assert (words[0] < 0).all()
    assert (words[1, :2] < 0).all()
    assert (words[1, 2:] == 0).all()


def test_gradient_is_the_sum_of_the_words_gradients() -> None:
    model = small()
    image = torch.rand(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    whole = torch.autograd.grad(model.log_prob(image, ["a thin three"]).sum(), image)[0]
    words = [
        torch.autograd.grad(model.word_log_probs(image, ["a thin three"])[0, place], image)[0] for place in range(4)
    ]
    torch.testing.assert_close(whole, sum(words))
    assert all(word.abs().sum() > 0 for word in words)


def test_a_word_does_not_see_those_after_it() -> None:
    model = small()
    image = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    one, other = (model(image, torch.tensor([tokens])) for tokens in ([0, 1, 2, 4], [0, 1, 3, 4]))
    torch.testing.assert_close(one[:, :2], other[:, :2])
    assert not torch.allclose(one[:, 2:], other[:, 2:])


def test_what_is_told_is_the_most_probable_word_each_time() -> None:
    model = small(max_words=3)
    images = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    for image, told in zip(images, model.caption(images), strict=True):
        tokens = [0]
        for word in [*words_of(told), None][:3]:
            best = model(image[None], torch.tensor([tokens]))[0, -1].argmax().item()
            assert best == (0 if word is None else WORDS.index(word) + 1)
            tokens.append(best)


def test_faults_are_named() -> None:
    model = small()
    with pytest.raises(ConditionError, match="does not know 'green'; it knows a, thick"):
        model.encode(["a green two"])
    with pytest.raises(ConditionError, match="empty"):
        model.encode(["a two", " , "])
    with pytest.raises(ConditionError, match="1 captions were given for 2 images"):
        model.log_prob(torch.rand(2, 1, 8, 8).double(), ["a two"])
    with pytest.raises(DataError, match="Captioner needs captions"):
        model.as_batch({"image": torch.rand(2, 1, 8, 8)})


def test_learns_what_the_digits_are() -> None:
    """Baseline: telling each image the same; at most one in ten digits would be right, and not all their strokes."""
    given = yaml.safe_load((recipe_folder() / "captioner" / "digits.yaml").read_text())["model"]["init_args"]
    torch.manual_seed(0)
    model = Captioner(image_shape=(1, 28, 28), **{**given, "lr": 3e-3})
    data = CaptionedDigitsDataModule(plain=True, zero_shot=None, batch_size=50)
    trainer = quiet_trainer(max_epochs=3, limit_val_batches=0)
    trainer.fit(model, datamodule=data)
    (scores,) = trainer.test(model, data, verbose=False)
    assert scores["test/right"] > 0.25
    assert scores["test/nll"] < 1.2
    images = data.datasets["test"].__getitems__(range(2))["image"]
    assert len(model.caption(images)) == 2
