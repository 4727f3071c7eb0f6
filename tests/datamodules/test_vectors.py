"""Binary vectors from text files made here, and a NADE that trains on them."""

import numpy as np
import pytest
import torch

from lightning_gen.datamodules import VectorDataModule
from lightning_gen.datamodules.vectors import SIZES, read_vectors
from lightning_gen.errors import DataError, DatasetNotFoundError
from lightning_gen.models import NADE
from tests.digits import quiet_trainer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The mushrooms' sizes: the second variable repeats the first, the others are 0. The test file has labels."""
    root = tmp_path_factory.mktemp("vectors")
    (root / "uci").mkdir()
    generator = np.random.default_rng(0)
    for part, size in zip(("train", "valid", "test"), SIZES["mushrooms"][1:], strict=True):
        rows = np.zeros((size, 112 + (part == "test")), int)
        rows[:, 0] = rows[:, 1] = generator.integers(2, size=size)
        rows[:, 112:] = 7
        np.savetxt(root / "uci" / f"mushrooms_{part}.txt", rows, fmt="%d")
    return root


def test_nade_learns_what_the_vectors_share(made):
    """One bit a vector, where independent variables need two."""
    datamodule = VectorDataModule("mushrooms", made, batch_size=50)
    assert datamodule.image_shape == (1, 1, 112)
    torch.manual_seed(0)
    model = NADE(datamodule.image_shape, hidden_size=8, optimizer="adam", lr=0.05)
    trainer = quiet_trainer(max_epochs=3)
    trainer.fit(model, datamodule=datamodule)
    (scores,) = trainer.test(model, datamodule=datamodule, verbose=False)
    assert scores["test/nll"] < 1.4 * np.log(2)


def test_splits_have_the_published_sizes(made):
    datamodule = VectorDataModule("mushrooms", made)
    datamodule.setup()
    assert [len(datamodule.datasets[split]) for split in ("train", "val", "test")] == [2000, 500, 5624]
    batch = next(iter(datamodule.test_dataloader()))
    assert set(batch["image"].unique().tolist()) == {0, 1}
    assert torch.equal(batch["image"][..., 0], batch["image"][..., 1])


def test_both_forms_of_text_are_read(tmp_path):
    expected = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.uint8)
    for name, text in {
        "plain": "1 0 0 1\n0 0 0 0\n0 1 0 0\n",
        "labelled": "1 0 0 1 25\n0 0 0 0 3\n0 1 0 0 0\n",
        "floats": "1.0 0.0 0 1\n0 0 0 0\n0 1e0 0 0",
        "libsvm": "+1 1:1 4:1\n-1\n0 2:1\n",
    }.items():
        (tmp_path / name).write_text(text)
        assert torch.equal(read_vectors(tmp_path / name, 4), expected), name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1 2\n", "holds the value 2; the variables are binary"),
        ("0 1 0.5\n", r"holds the value 0\.5"),
        ("0 1 nan\n", "holds the value nan"),
        ("1 2:3\n", "holds the value 3"),
        ("1 4:1\n", "cannot be read as rows of 3 zeros and ones .*index 4"),
        ("0 1\n", "has 2 columns; expected 3"),
        ("0 1 1 1 1\n", "has 5 columns; expected 3"),
        ("0 1 1\n0 1\n", "cannot be read"),
        ("yes no no\n", "cannot be read"),
        ("\x00\xff", "cannot be read"),
    ],
)
def test_other_text_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "x.txt").write_bytes(text.encode("latin1"))
    with pytest.raises(DataError, match=rf"x\.txt .*{message}|x\.txt {message}") as error:
        read_vectors(tmp_path / "x.txt", 3)
    assert "\n" not in str(error.value)


def test_missing_cut_and_unknown_sets(made):
    with pytest.raises(
        DatasetNotFoundError, match=r"dna_train\.txt and is not there; put dna_\{train,valid,test\}\.txt"
    ):
        VectorDataModule("dna", made).setup()
    np.savetxt(made / "uci" / "web_train.txt", np.zeros((3, 300)), fmt="%d")
    with pytest.raises(DataError, match="holds 3 vectors; the published split has 14000"):
        VectorDataModule("web", made).setup()
    with pytest.raises(DataError, match="name='iris'; expected one of adult, connect4"):
        VectorDataModule("iris")
