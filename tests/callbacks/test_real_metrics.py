"""The real metrics through the callback, on real digits."""

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from lightning_gen.callbacks import SampleEvaluation
from lightning_gen.datamodules import DigitsDataModule
from lightning_gen.functional import parzen_log_likelihood
from lightning_gen.metrics import FrechetDistance, InceptionScore, KernelDistance, ParzenLogLikelihood
from tests.callbacks.runs import Halves, fit, small_vae
from tests.digits import quiet_trainer


def test_all_of_them_and_parzen_by_hand(tmp_path: Path) -> None:
    metrics = [ParzenLogLikelihood([0.3]), FrechetDistance(), KernelDistance(10, 50), InceptionScore()]
    evaluation = SampleEvaluation(metrics, num_samples=100, extractor=Halves(), batch_size=60)
    trainer = fit([evaluation], epochs=2, default_root_dir=tmp_path)
    names = ["parzen", "fid_halves", "kid_halves", "inception_score_halves"]
    assert [figure.name for figure in evaluation.figures] == 2 * [f"val/{name}" for name in names]
    first, last = evaluation.figures[:4], evaluation.figures[4:]
    assert [f.real for f in first] == [f.real for f in last], "real images are scored once"
    for figure in last[1:3]:
        assert figure.real < figure.value / 3, "training images are nearer to held-out ones than samples are"

    held_out = torch.cat([batch["image"] for batch in trainer.datamodule.val_dataloader()])[:200]
    samples = torch.cat(
        [
            trainer.lightning_module.sample(n, generator=torch.Generator().manual_seed(start))
            for start, n in ((0, 60), (60, 40))
        ]
    )
    by_hand = parzen_log_likelihood(held_out.flatten(1), samples.flatten(1), 0.3)
    assert last[0].value == pytest.approx(by_hand.mean().item(), rel=1e-6)
    assert last[0].protocol == "100 samples, 200 val images, sigma 0.3 given"
    assert last[0].standard_error == pytest.approx((by_hand.double().std() / 200**0.5).item(), rel=1e-2)


def test_what_is_chosen_on_the_scored_images_says_so(tmp_path: Path) -> None:
    evaluation = SampleEvaluation([ParzenLogLikelihood()], num_samples=20)
    trainer = fit([evaluation], epochs=1, limit_train_batches=1, default_root_dir=tmp_path)
    assert evaluation.figures[0].protocol.endswith("chosen on 200 images, the same that are scored")
    trainer.test(trainer.lightning_module, datamodule=trainer.datamodule, verbose=False)
    assert evaluation.figures[0].protocol.endswith("chosen on 500 images")


def test_a_metric_that_lacks_images_is_left_out() -> None:
    """A test on bare loaders has no images to choose Parzen's width on; the other figures are given."""
    evaluation = SampleEvaluation([ParzenLogLikelihood(), FrechetDistance()], num_samples=20, extractor=Halves())
    data = DigitsDataModule(binarization="dynamic")
    loader = DataLoader(next(iter(data.test_dataloader()))["image"], batch_size=50)
    trainer = quiet_trainer(callbacks=[evaluation])
    with pytest.warns(UserWarning, match="parzen is left out: ParzenLogLikelihood has 0 tuning images"):
        trainer.test(small_vae(), loader, verbose=False)
    assert [figure.name for figure in evaluation.figures] == ["test/fid_halves"]
    assert evaluation.figures[0].real is None
