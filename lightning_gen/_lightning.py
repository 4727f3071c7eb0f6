"""The one place that names Lightning's distribution.

`pytorch_lightning` and `lightning.pytorch` are the same code under two class hierarchies, and a Trainer of one refuses
a module of the other. This package runs on `pytorch_lightning`, or on `lightning` where the environment variable
`LIGHTNING_GEN_BACKEND=lightning` is set before the first import.
"""

import os
from typing import TYPE_CHECKING, Any

BACKEND = os.environ.get("LIGHTNING_GEN_BACKEND", "pytorch_lightning")

if TYPE_CHECKING or BACKEND == "pytorch_lightning":
    import pytorch_lightning as pl  # noqa: TID251
elif BACKEND == "lightning":
    import lightning.pytorch as pl  # noqa: TID251
else:
    raise ImportError(f"LIGHTNING_GEN_BACKEND is {BACKEND!r}; expected 'pytorch_lightning' or 'lightning'.")

Callback = pl.Callback
LightningDataModule = pl.LightningDataModule
LightningModule = pl.LightningModule
Trainer = pl.Trainer
seed_everything = pl.seed_everything

# The doors to what Lightning does not promise to keep: each a function with its reason, and the issue if there is one.


def reads_after_training(callback: Any) -> bool:
    """Whether a ModelCheckpoint or an EarlyStopping reads its monitor at the end of every training epoch.

    Else it does so at the end of validation. Neither has a public attribute for it.
    """
    name = (
        "_save_on_train_epoch_end"
        if isinstance(callback, pl.callbacks.ModelCheckpoint)
        else "_check_on_train_epoch_end"
    )
    return bool(getattr(callback, name))


__all__ = [
    "BACKEND",
    "Callback",
    "LightningDataModule",
    "LightningModule",
    "Trainer",
    "pl",
    "reads_after_training",
    "seed_everything",
]
