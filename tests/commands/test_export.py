"""Every model with a `decode` as a graph: torch.export, torch.compile and ONNX give the numbers of the model."""

import re
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch.utils._pytree import tree_map

from lightning_gen import models
from lightning_gen._lightning import seed_everything
from lightning_gen.cli import main
from lightning_gen.errors import LightningGenError
from lightning_gen.models import NADE, VGAN, GenerativeModule
from tests.tiny import TINY, tiny

GENERATIVE = [name for name in TINY if issubclass(getattr(models, name), GenerativeModule)]
DECODERS = [name for name in GENERATIVE if hasattr(getattr(models, name), "decode") or name == "Pix2Pix"]


def without_noise(name: str) -> tuple[Any, list[tuple[Any, ...]]]:
    """A model in eval mode without its own noise, and what it makes images of: three rows, five, and one."""
    seed_everything(0, verbose=False)
    model: Any
    model, data = tiny(name)
    model.eval()
    model.sample_dropout, model.dropout = False, 0.0
    data.setup("fit")
    batch = data.on_before_batch_transfer(next(iter(data.val_dataloader())), 0)
    given = []
    for number in (3, 5, 1):
        rows = {key: batch[key][:number] for key in model.condition_keys}
        if name == "Pix2Pix":
            given.append((rows["source"],))
        elif hasattr(model, "draw_start"):  # DGNAM and PPGN: of codes, which a chain finds.
            given.append((model.draw_start(number, None),))
        else:
            condition = model.check_condition(rows, number) if rows else None
            given.append((model.sample_latent(number), *([dict(condition)] if condition else [])))
    return model, given


def dynamic(arguments: tuple[Any, ...]) -> Any:
    return tree_map(lambda _: {0: torch.export.Dim("n", min=1)}, arguments)


@pytest.mark.parametrize("name", DECODERS)
def test_the_whole_module_is_exported_for_any_number_of_rows(name: str) -> None:
    model, given = without_noise(name)
    with torch.no_grad():
        graph = torch.export.export(model, given[0], dynamic_shapes=dynamic(given[0])).module()
        for arguments in given:
            expected = model(*arguments)
            assert expected.shape[1:] == model.image_shape
            torch.testing.assert_close(graph(*arguments), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "name", [name if name in ("ACGAN", "CGAN") else pytest.param(name, marks=pytest.mark.slow) for name in DECODERS]
)
def test_the_whole_module_and_decode_are_compiled_without_a_break(name: str) -> None:
    model, given = without_noise(name)
    torch._dynamo.reset()
    for part in (model, getattr(model, "decode", model.forward)):
        compiled = torch.compile(part, fullgraph=True, backend="eager")
        for arguments in given[:2]:
            with torch.no_grad():
                torch.testing.assert_close(compiled(*arguments), model(*arguments), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", DECODERS)
def test_onnx_gives_the_same_images(name: str, tmp_path: Path) -> None:
    """By Lightning's own method, as a stranger calls it."""
    model, given = without_noise(name)
    path = tmp_path / "model.onnx"
    model.to_onnx(path, (*given[0], {}), dynamo=True, dynamic_shapes=dynamic(given[0]), verbose=False)
    session = onnxruntime.InferenceSession(path)
    for arguments in given:
        leaves = [leaf.numpy() for leaf in torch.utils._pytree.tree_leaves(arguments)]
        inputs = {one.name: leaf for one, leaf in zip(session.get_inputs(), leaves, strict=True)}
        with torch.no_grad():
            expected = model(*arguments)
        torch.testing.assert_close(torch.from_numpy(session.run(None, inputs)[0]), expected, rtol=0, atol=2e-6)


def test_a_model_is_called_with_noise_and_labels() -> None:
    model, given = without_noise("ACGAN")
    z, condition = given[0]
    assert torch.equal(model(z, {"label": condition["label"]}), model.decode(z, condition))
    assert not torch.equal(model(z, {"label": 9 - condition["label"]}), model.decode(z, condition))
    with pytest.raises(LightningGenError, match=r"NADE makes its images draw by draw .* call sample"):
        NADE((1, 4, 4), 3)(torch.zeros(1))


def test_a_video_of_a_still_frame_is_made_of_the_condition() -> None:
    model = VGAN((1, 4, 8, 8), conditional=True, base_channels=2).eval()
    frames = torch.rand(3, 1, 8, 8)
    expected = model.sample(3, {"image": frames})
    torch.testing.assert_close(model(model.sample_latent(3), {"image": frames}).detach(), expected, rtol=0, atol=1e-6)


# The command ---------------------------------------------------------------------------------------------------------


def checkpoint(name: str, folder: Path, **changes: Any) -> str:
    """A file as `fit` leaves it, of a tiny model that was not trained."""
    seed_everything(0, verbose=False)
    model, _ = tiny(name)
    content: dict[str, Any] = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(content)
    content["hyper_parameters"].update(changes)
    torch.save(content, folder / "last.ckpt")
    return str(folder / "last.ckpt")


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_a_checkpoint_is_written_as_a_graph_and_compared(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint("CGAN", tmp_path, sample_dropout=False)
    output = tmp_path / f"gen.{suffix}"
    main(["export", "--ckpt_path", path, "--output", str(output)])
    said = capsys.readouterr().out.strip().splitlines()[-1]
    form = r"z \(n, 100\), label \(n\) int64 -> image \(n, 1, 28, 28\): largest difference (\S+), in (.*)"
    match = re.fullmatch(form, said)
    assert match is not None, said
    assert float(match[1]) < 1e-6
    assert match[2] == str(output)
    assert sorted(file.name for file in tmp_path.iterdir()) == [output.name, "last.ckpt"]
    if suffix == "onnx":
        session = onnxruntime.InferenceSession(output)
        assert [one.name for one in session.get_inputs()] == ["z", "label"]
        given = {"z": torch.zeros(1, 100).numpy(), "label": torch.tensor([7]).numpy()}
        (images,) = session.run(["image"], given)
        assert images.shape == (1, 1, 28, 28)


def test_noise_of_the_generator_is_compared_by_means(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["export", "--ckpt_path", checkpoint("CGAN", tmp_path), "--output", str(tmp_path / "gen.pt2")])
    found = re.search(
        r"noise of its own: means of 256 draws differ by (\S+), two of .* by (\S+),", capsys.readouterr().out
    )
    assert found is not None
    assert float(found[1]) == pytest.approx(float(found[2]), rel=0.5)


def test_what_is_no_graph_of_noise_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, output, message in (
        ("NADE", "gen.onnx", "NADE makes its images draw by draw, each seen by the next, which is no graph of noise"),
        ("CGAN", "gen.txt", "ends in '.txt'; expected .onnx or .pt2"),
        ("GAWWN", "gen.onnx", "needs a condition with caption, box"),
    ):
        with pytest.raises(SystemExit):
            main(["export", "--ckpt_path", checkpoint(name, tmp_path), "--output", str(tmp_path / output)])
        assert message in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
