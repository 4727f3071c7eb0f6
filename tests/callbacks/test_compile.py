"""Networks compiled in place: the same training, the same names in a checkpoint."""

import shutil
from pathlib import Path

import pytest
import torch

from lightning_gen.callbacks import Compile
from lightning_gen.errors import LightningGenError
from lightning_gen.models import PixelRNN
from tests.callbacks.runs import fit, small_vae, weights


def tiny_pixel_rnn() -> PixelRNN:
    return PixelRNN(variant="pixelcnn", num_layers=1, hidden_size=4, head_size=4)


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_training_is_that_of_the_plain_network(tmp_path: Path) -> None:
    plain, compiled = (
        fit(callbacks, tiny_pixel_rnn, epochs=1, precision="64-true", limit_val_batches=0, default_root_dir=tmp_path)
        for callbacks in ([], [Compile(["net"])])
    )
    assert plain.model.net._compiled_call_impl is None
    assert compiled.model.net._compiled_call_impl is not None
    assert weights(compiled).keys() == weights(plain).keys()
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(compiled)[name], value, rtol=0, atol=1e-9)  # Summed in another order.
    compiled.save_checkpoint(tmp_path / "compiled.ckpt")
    loaded = PixelRNN.load_from_checkpoint(tmp_path / "compiled.ckpt", weights_only=True)
    assert loaded.state_dict().keys() == weights(plain).keys()


def test_a_network_that_is_not_there_is_named() -> None:
    with pytest.raises(LightningGenError, match=r"Compile got modules=\['net'\]; VAE has encoder, decoder"):
        fit([Compile(["net"])], small_vae)
