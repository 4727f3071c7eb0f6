"""Frozen networks: what may be named, what is read of them, and where their weights come from."""

import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_gen.errors import CheckpointError, ConditionError, DataError, WeightsNotFoundError
from lightning_gen.nn import DigitFeatures, FrozenNetwork, TorchvisionClassifier, read_layers


def test_layers_are_read_in_one_pass_and_in_parts() -> None:
    network, images = DigitFeatures(), torch.rand(3, 1, 28, 28)
    calls = []
    network.network.head.register_forward_hook(lambda *_: calls.append(1))
    features, maps, logits = read_layers(network, images, ["features", "network.body.11", "logits"])
    assert len(calls) == 1
    assert maps.shape == (3, 64, 4, 4)
    torch.testing.assert_close(features, network.network.body[12:](maps))
    torch.testing.assert_close(logits, network(images).logits)
    assert not network.network.body[11]._forward_hooks


def test_a_layer_is_read_as_it_was_before_the_next_works_in_place() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(inplace=True))
    before = read_layers(network, torch.rand(20, 1, 2, 2), ["1"])[0]
    assert (before < 0).any()


def test_an_unknown_layer_is_named_with_those_there_are() -> None:
    with pytest.raises(
        ConditionError, match=r"no layer 'network.bodi.3'; did you mean network.body.3\?.*It has logits"
    ):
        read_layers(DigitFeatures(), torch.rand(1, 1, 28, 28), ["network.bodi.3"])


def test_frozen_networks_stay_in_eval_mode_and_without_gradients() -> None:
    torch.manual_seed(0)
    stream = torch.get_rng_state()
    frozen = FrozenNetwork("lightning_gen.nn.DigitNetwork", {"num_features": 4}).train()
    assert torch.equal(torch.get_rng_state(), stream)
    assert not any(module.training for module in frozen.modules())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_a_name_from_outside_is_not_run() -> None:
    for name in ("os.system", "subprocess.Popen", "not_there.Network"):
        with pytest.raises(CheckpointError, match=name):
            FrozenNetwork(name, {})
    assert subprocess  # Imported, and still refused: it is no module.
    with pytest.raises(CheckpointError, match=r"given encoder_args=\{'depth': 3\}"):
        FrozenNetwork("lightning_gen.nn.DigitFeatures", {"depth": 3})


def test_weights_come_from_a_state_dict_or_a_checkpoint(tmp_path: Path) -> None:
    source = FrozenNetwork("lightning_gen.nn.DigitNetwork", {})
    frozen = FrozenNetwork("lightning_gen.nn.DigitNetwork", {})
    for held in (source.network.state_dict(), {"state_dict": source.network.state_dict()}):
        torch.save(held, tmp_path / "weights.pt")
        frozen.read_weights(str(tmp_path / "weights.pt"))
        torch.testing.assert_close(frozen.network.head.weight, source.network.head.weight)
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="does not hold weights of DigitNetwork"):
        frozen.read_weights(str(tmp_path / "weights.pt"))
    with pytest.raises(WeightsNotFoundError, match=r"no file .*none.pt"):
        frozen.read_weights(str(tmp_path / "none.pt"))


def test_torchvisions_classifiers_are_resized_and_normalised() -> None:
    with pytest.raises(DataError, match=r"no classifier 'resnet_18'; did you mean resnet18\?"):
        TorchvisionClassifier("resnet_18")
    network = TorchvisionClassifier("squeezenet1_1", image_size=40, num_classes=7).eval()
    grey = torch.rand(2, 1, 20, 20)
    torch.testing.assert_close(network(grey), network(grey.expand(-1, 3, -1, -1)))
    seen: list[torch.Tensor] = []
    network.network.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    network(network.mean.expand(1, 3, 40, 40))
    torch.testing.assert_close(seen[0], torch.zeros(1, 3, 40, 40), rtol=0, atol=1e-6)
