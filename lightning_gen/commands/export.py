"""`lightning-gen export`: a checkpoint's generator as a graph that runs without this package."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_gen.commands.pictures import Condition, load, new_output
from lightning_gen.errors import LightningGenError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

ROWS = 3  # Of the example that the graph is made with; it takes any number.
DRAWS = 256  # Of a model with noise of its own, to compare means.


def export(ckpt_path: str, output: str, condition: Condition = Condition(), seed: int = 0) -> None:  # noqa: B008
    """Write what makes images of noise as a graph: ONNX, or the archive of torch.export.

    Its inputs are the noise z and the condition's tensors, of any number of rows; its output are images in [0, 1]. A
    caption goes in as its embedding, and a translator takes its source alone. The graph is read back, run by
    onnxruntime or PyTorch, and compared with the model.

    Args:
        ckpt_path: the checkpoint of any model with `decode`, or of a translator.
        output: a .onnx or a .pt2.
        condition: an example of what the graph will be given, for models that cannot draw one.
        seed: of the noise on which both are compared.
    """
    with new_output(output, (".onnx", ".pt2")) as draft:
        import torch

        model: Any = load(ckpt_path, "cpu", seed)
        with model.evaluating(), torch.no_grad():
            inputs = example_inputs(model, condition)
            rows = torch.export.Dim("n", min=1)
            write, read = (write_onnx, read_onnx) if draft.suffix == ".onnx" else (write_pt2, read_pt2)
            write(model, inputs, {name: {0: rows} for name in inputs}, draft)
            images = model(*arguments(inputs))
            run = read(draft, list(inputs))
            compared = compare(model, run, inputs, seed)
    given = ", ".join(described(name, value) for name, value in inputs.items())
    print(f"{given} -> {described(model.data_key, images)}: {compared}, in {output}")


def example_inputs(model: Any, condition: Condition) -> dict[str, Tensor]:
    """A few rows of what the graph takes, by name: noise first, then the condition's tensors."""
    if not hasattr(model, "decode") and model.condition_keys != ("source",):
        raise LightningGenError(
            f"{type(model).__name__} makes its images draw by draw, each seen by the next, which is no graph of noise; "
            "a GAN, a VAE or a Pix2Pix has one."
        )
    if hasattr(model, "draw_start"):  # The codes that a chain would find; what it looks for is no part of the graph.
        return {"z": model.draw_start(ROWS, None)}
    given = model.check_condition(condition.rows(ROWS), ROWS) or {}
    return {"z": model.sample_latent(ROWS), **given} if hasattr(model, "decode") else dict(given)


def arguments(inputs: dict[str, Any]) -> tuple[Any, ...]:
    """Inputs as the model's `forward` takes them, or what describes them: z and a condition, or a source."""
    first, *others = inputs
    return (inputs[first], {key: inputs[key] for key in others}) if others else (inputs[first],)


def compare(model: Any, run: Callable[..., Tensor], inputs: dict[str, Tensor], seed: int) -> str:
    """How far the graph's images are from the model's; of a model with dropout in its generator, their means."""
    import torch

    one, other = model(*arguments(inputs)), model(*arguments(inputs))
    if torch.equal(one, other):
        return f"largest difference {(run(*inputs.values()) - one).abs().max().item():.1e}"
    many = {name: value[:1].repeat_interleave(DRAWS, 0) for name, value in inputs.items()}
    torch.manual_seed(seed)
    means = [model(*arguments(many)).mean(0), model(*arguments(many)).mean(0), run(*many.values()).mean(0)]
    own, found = ((mean - means[0]).abs().mean().item() for mean in means[1:])
    return f"it has noise of its own: means of {DRAWS} draws differ by {found:.1e}, two of the model's by {own:.1e}"


def write_pt2(model: Any, inputs: dict[str, Tensor], rows: dict[str, Any], path: Path) -> None:
    """Write the archive of `torch.export`."""
    import torch

    torch.export.save(torch.export.export(model, arguments(inputs), dynamic_shapes=arguments(rows)), path)


def read_pt2(path: Path, names: list[str]) -> Callable[..., Tensor]:
    """The graph of such an archive, as a function of the inputs in order."""
    import torch

    module = torch.export.load(path).module()
    return lambda *values: module(*arguments(dict(zip(names, values, strict=True))))


def write_onnx(model: Any, inputs: dict[str, Tensor], rows: dict[str, Any], path: Path) -> None:
    """Write an ONNX file, weights inside."""
    import torch

    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise LightningGenError(
            f"ONNX needs three packages, and {error.name} is not installed; type: pip install 'lightning_gen[export]'"
        ) from error
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*The axis name")  # One name of several axes is what is asked for.
        program: Any = torch.onnx.export(
            model,
            (*arguments(inputs), {}),  # A dict at the end would be taken for keywords.
            dynamo=True,
            input_names=list(inputs),
            output_names=[model.data_key],
            dynamic_shapes=arguments(rows),
            verbose=False,
        )
    program.save(path, external_data=False)


def read_onnx(path: Path, names: list[str]) -> Callable[..., Tensor]:
    """The graph of an ONNX file, run by onnxruntime, as a function of the inputs in order."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(*values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        (images,) = session.run(None, {one.name: given[one.name].numpy() for one in session.get_inputs()})
        return torch.from_numpy(images)

    return run


def described(name: str, values: Tensor) -> str:
    """A name with a shape, and with a type that is not float32."""
    import torch

    kind = "" if values.dtype == torch.float32 else f" {str(values.dtype).removeprefix('torch.')}"
    return f"{name} ({', '.join(['n', *map(str, values.shape[1:])])}){kind}"
