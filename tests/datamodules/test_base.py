"""What all data modules share: loaders, random streams, hyper-parameters in checkpoints."""

from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler

from lightning_gen._lightning import LightningModule, Trainer, pl
from lightning_gen.datamodules import DigitsDataModule, FakeDataModule, ImageDataModule, InMemoryDataset
from lightning_gen.datamodules.base import as_is, binarize
from lightning_gen.errors import DataError


class PixelMean(LightningModule):
    """The smallest model that trains: one value for all pixels."""

    def __init__(self, image_shape: tuple[int, ...] = (1, 28, 28), batch_size: int = 3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.value = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        return (batch["image"] - self.value).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/error", (batch["image"] - self.value).square().mean())

    def test_step(self, batch, batch_idx):
        self.log("test/error", (batch["image"] - self.value).square().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Stripes(ImageDataModule):
    """Somebody's own data module, as short as it can be."""

    def __init__(self, root=None, width: int = 4, batch_size: int = 2) -> None:
        super().__init__(root, batch_size)
        self.width = width

    @property
    def image_shape(self):
        return (1, 1, self.width)

    def load(self):
        images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(-1, *self.image_shape)
        return self.in_memory({split: {"image": images} for split in ("train", "val", "test")})


def fit(datamodule, folder, model=None, **options):
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", max_epochs=1, enable_progress_bar=False, enable_model_summary=False,
        **{"logger": False, **options},
    )  # fmt: skip
    trainer.fit(model or PixelMean(), datamodule=datamodule)
    return trainer


def order(loader):
    return torch.cat([batch["image"].sum((1, 2, 3)) for batch in loader])


# Checkpoints ----------------------------------------------------------------------------------------------------


def test_checkpoint_rebuilds_the_data_module(tmp_path):
    given = {"batch_size": 40, "num_workers": 0, "binarization": "dynamic", "classes": [3, 7]}
    fit(DigitsDataModule(**given), tmp_path).save_checkpoint(tmp_path / "x.ckpt")

    held = torch.load(tmp_path / "x.ckpt", weights_only=True)["datamodule_hyper_parameters"]
    assert held == given

    loaded = DigitsDataModule.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert (loaded.batch_size, loaded.binarization, loaded.classes) == (40, "dynamic", [3, 7])
    ours, theirs = (next(iter(d.test_dataloader()))["image"] for d in (loaded, DigitsDataModule(**given)))
    assert torch.equal(ours, theirs)


def test_paths_are_kept_as_text(tmp_path):
    fit(Stripes(tmp_path, width=5), tmp_path).save_checkpoint(tmp_path / "x.ckpt")
    loaded = Stripes.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert loaded.root == tmp_path
    assert loaded.image_shape == (1, 1, 5)


def test_command_line_hyperparameters_load_alike(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["x"])
    cli = import_module(f"{pl.__name__}.cli").LightningCLI(
        PixelMean,
        subclass_mode_data=True,
        run=False,
        save_config_callback=None,
        args=["--data=lightning_gen.datamodules.DigitsDataModule", "--data.classes=[1,2]", "--data.batch_size=50"],
    )
    script = DigitsDataModule(classes=[1, 2], batch_size=50)
    assert dict(cli.datamodule.hparams) == dict(script.hparams)


def test_a_model_may_have_arguments_of_the_same_name(tmp_path):
    # Lightning refuses to log hyper-parameters of both when their values differ.
    fit(FakeDataModule((1, 4, 4)), tmp_path, PixelMean([1, 4, 4]), logger=pl.loggers.CSVLogger(tmp_path))


# Random streams -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binarization", ["none", "dynamic"])
def test_training_follows_the_global_stream_alone(binarization):
    def epochs(seed, datamodule):
        torch.manual_seed(seed)
        return order(datamodule.train_dataloader()), order(datamodule.train_dataloader())

    datamodule = DigitsDataModule(binarization=binarization)
    first, second = epochs(1, datamodule)
    assert len(first) == 4000
    assert not torch.equal(first, second)
    assert all(map(torch.equal, (first, second), epochs(1, DigitsDataModule(binarization=binarization))))
    assert not torch.equal(first, epochs(2, datamodule)[0])


def test_dynamic_pixels_differ_between_epochs_but_held_out_ones_repeat():
    datamodule = DigitsDataModule(binarization="dynamic")
    datamodule.setup()
    train = datamodule.datasets["train"]
    assert not torch.equal(train[0]["image"], train[0]["image"])
    for loader in (datamodule.val_dataloader, datamodule.test_dataloader):
        assert torch.equal(next(iter(loader()))["image"], next(iter(loader()))["image"])


def test_a_held_out_pass_leaves_the_global_stream_alone():
    datamodule = DigitsDataModule(binarization="dynamic")
    state = torch.get_rng_state()
    for loader in (datamodule.val_dataloader(), datamodule.test_dataloader(), datamodule.predict_dataloader()):
        list(loader)
    assert torch.equal(torch.get_rng_state(), state)


def test_workers_continue_from_the_global_stream():
    """A run resumed at an epoch's border draws the pixels that the straight run drew."""
    loader = DigitsDataModule(binarization="dynamic", classes=[0], num_workers=1).train_dataloader()
    torch.manual_seed(3)
    order(loader)
    state = torch.get_rng_state()
    straight = order(loader)
    torch.set_rng_state(state)
    resumed = order(DigitsDataModule(binarization="dynamic", classes=[0], num_workers=1).train_dataloader())
    assert torch.equal(straight, resumed)


def test_persistent_workers_where_they_draw_nothing():
    assert DigitsDataModule(num_workers=1).train_dataloader().persistent_workers
    assert DigitsDataModule(num_workers=1, binarization="dynamic").val_dataloader().persistent_workers
    assert not DigitsDataModule(num_workers=1, binarization="dynamic").train_dataloader().persistent_workers
    assert not DigitsDataModule().train_dataloader().persistent_workers


def test_pixels_are_drawn_with_the_grey_value_as_probability():
    levels = torch.arange(256, dtype=torch.uint8)
    n = 4000
    drawn = binarize(levels.expand(n, -1), torch.Generator().manual_seed(0)).float()
    p = levels / 255
    assert set(drawn.unique().tolist()) == {0, 1}
    assert (drawn[:, 0] == 0).all()
    assert (drawn[:, 255] == 1).all()
    deviation = (drawn.mean(0) - p) / (p * (1 - p) / n).sqrt().clamp(min=1e-9)
    assert deviation.abs().max() < 4.5
    assert deviation[1:-1].square().mean() == pytest.approx(1, abs=0.4)  # A bias of 1/256 would make it 1.3 and more.
    assert deviation[1:-1].mean().abs() < 4 / 254**0.5


# Loaders --------------------------------------------------------------------------------------------------------


def test_batches_are_one_index_and_equal_single_rows():
    dataset = InMemoryDataset({
        "image": torch.arange(12, dtype=torch.uint8).view(3, 1, 2, 2),
        "label": torch.tensor([5, 6, 7]),
        "caption": [["a"], ["b"], ["c"]],
    })  # fmt: skip
    batch = dataset.__getitems__([2, 0])
    assert batch["image"].dtype == torch.float32
    assert torch.equal(batch["image"], torch.tensor([[8.0, 9, 10, 11], [0, 1, 2, 3]]).view(2, 1, 2, 2) / 255)
    assert batch["label"].tolist() == [7, 5]
    assert batch["caption"] == [["c"], ["a"]]
    row = dataset[2]
    assert torch.equal(row["image"], batch["image"][0])
    assert (row["label"], row["caption"]) == (7, ["c"])


def test_two_ranks_share_an_epoch():
    datamodule = DigitsDataModule()
    datamodule.setup()
    dataset = InMemoryDataset({"row": torch.arange(len(datamodule.datasets["train"]))})
    rows = []
    for rank in range(2):
        sampler = DistributedSampler(dataset, num_replicas=2, rank=rank, seed=1)
        loader = DataLoader(dataset, batch_size=100, sampler=sampler, collate_fn=as_is)
        rows.append(torch.cat([batch["row"] for batch in loader]))
    assert len(rows[0]) == len(rows[1]) == 2000
    assert torch.equal(torch.cat(rows).sort().values, torch.arange(4000))


def test_own_data_module_trains_and_tests(tmp_path):
    datamodule = Stripes()
    trainer = fit(datamodule, tmp_path)
    assert trainer.global_step == 3
    assert trainer.test(PixelMean(), datamodule=datamodule, verbose=False)[0]["test/error"] > 0
    assert datamodule.num_classes == 0
    assert datamodule.condition_shapes == {}


# Arguments ------------------------------------------------------------------------------------------------------


def test_root_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LIGHTNING_GEN_DATA", str(tmp_path))
    assert Stripes().root == tmp_path
    assert Stripes(root="elsewhere").root == Path("elsewhere")
    monkeypatch.delenv("LIGHTNING_GEN_DATA")
    assert Stripes().root == Path("data")
    assert Stripes().hparams["root"] is None  # So that a checkpoint finds the data on another machine.


def test_classes_keep_their_numbers():
    datamodule = DigitsDataModule(classes=[3, 8])
    batch = next(iter(datamodule.test_dataloader()))
    assert set(batch["label"].tolist()) == {3, 8}
    assert datamodule.num_classes == 10
    assert len(datamodule.datasets["train"]) == 800


@pytest.mark.parametrize("classes", [[3, 12], [-1], []])
def test_labels_that_do_not_exist_are_refused(classes):
    with pytest.raises(DataError, match=r"classes=\[.*\] was asked for; .* the labels 0 to 9\.$"):
        DigitsDataModule(classes=classes).setup()


def test_classes_of_data_without_labels_are_refused():
    datamodule = Stripes()
    datamodule.classes = [0]
    with pytest.raises(DataError, match="Stripes has no labels"):
        datamodule.setup()
