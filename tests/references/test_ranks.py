"""Two real processes, each with half of a batch, against the references on the whole of it."""

import os
from pathlib import Path

import torch
from torch import Tensor

from lightning_gen.models import GMMN, NADE
from tests.digits import quiet_trainer
from tests.ranks import spawn_ranks
from tests.references import gmmn, nade
from tests.references.compare import grey, parameters_of, same_parameters, shaken, trainable
from tests.references.layers import Momentum

BATCH, BANDWIDTHS, LR = 6, (0.5, 2.0, 10.0), 0.5


def matching() -> tuple[GMMN, Tensor, Tensor]:
    """The discrepancy is one of all pairs, also of those that two ranks hold."""
    model = shaken(GMMN((1, 5, 7), latent_dim=3, hidden_sizes=(4,), bandwidths=BANDWIDTHS, lr=LR))
    return model, grey(BATCH, 1, 5, 7), 2 * grey(BATCH, 3, seed=5) - 1


def autoregressive() -> tuple[NADE, Tensor]:
    """Its gradient is a mean over the images of both ranks."""
    return shaken(NADE((1, 5, 7), hidden_size=9, lr=LR)), grey(BATCH, 1, 5, 7).round()


def _rank(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    mine = slice(3 * rank, 3 * rank + 3)
    (matched, images, z), (nade_model, binary) = matching(), autoregressive()
    matched.sample_latent = lambda *_: z[mine]
    nade_model.initialized.fill_(True)
    for name, model, rows in (("gmmn", matched, images), ("nade", nade_model, binary)):
        loader = torch.utils.data.DataLoader([{"image": rows[mine]}], batch_size=None)
        settings = {"strategy": "ddp", "devices": 2, "use_distributed_sampler": False, "precision": "64-true"}
        quiet_trainer(max_epochs=1, limit_val_batches=0, **settings).fit(model, loader)
        if rank == 0:
            torch.save(model.state_dict(), folder / f"{name}.pt")


def test_two_ranks(tmp_path: Path) -> None:
    spawn_ranks(_rank, tmp_path)
    model, images, z = matching()
    p = trainable(model)
    Momentum(LR, 0.9).step(p, gmmn.gradients(images.flatten(1), z, p, BANDWIDTHS))
    model.load_state_dict(torch.load(tmp_path / "gmmn.pt", weights_only=True))
    same_parameters(model, p)

    model, images = autoregressive()
    p = parameters_of(model)
    names = ["weight", "output_weight", "output_bias", "hidden_bias"]
    order, weights = p["ordering"].tolist(), [p[name] for name in names]
    per_image = [nade.nade_gradients(x, order, *weights) for x in images.flatten(1)]
    for name, gradients in zip(names, zip(*per_image, strict=True), strict=True):
        p[name] = p[name] - LR * sum(gradients) / BATCH
    model.load_state_dict(torch.load(tmp_path / "nade.pt", weights_only=True))
    same_parameters(model, p)
