"""torch's two exporters, each a torch module in eval mode -> an ONNX model of dynamic batch."""

import importlib
import inspect
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

_OPSET = 18
_OUTPUT = "logits"
_HIDDEN_DOMAIN = "gradscore.hidden"

Exporter = Callable[["torch.nn.Module", "Mapping[str, torch.Tensor]", Sequence[int], bool, bool], "ir.Model"]


def by_dynamo(
    module: "torch.nn.Module",
    batches: "Mapping[str, torch.Tensor]",
    free_axes: Sequence[int],
    by_name: bool,
    fold: bool,
) -> "ir.Model":
    """Capture the module's program, whatever its inputs: the layers keep their names, batch norms are folded on request.

    Parameters
    ----------
    batches
        Two samples of each input, by name; `by_name` says that the names are those of the module's arguments.
    free_axes
        Axes beside the batch that may vary.
    """
    torch = importlib.import_module("torch")
    batch, free = torch.export.Dim("batch"), {axis: torch.export.Dim(f"axis_{axis}") for axis in free_axes}
    shapes = {
        name: {0: batch, **{axis: dim for axis, dim in free.items() if axis < one.ndim}} for name, one in batches.items()
    }  # fmt: skip
    given = {"kwargs": batches, "dynamic_shapes": shapes} if by_name else {"dynamic_shapes": tuple(shapes.values())}
    program = torch.onnx.export(
        module, () if by_name else tuple(batches.values()), dynamo=True, opset_version=_OPSET, verbose=False,
        optimize=fold, input_names=list(batches), output_names=[_OUTPUT], **given,
    )  # fmt: skip
    model: ir.Model = program.model
    if not fold:
        _optimize_around_batch_norm(model)
    return model


def by_torchscript(
    module: "torch.nn.Module",
    batches: "Mapping[str, torch.Tensor]",
    free_axes: Sequence[int],
    by_name: bool,
    fold: bool,
) -> "ir.Model":
    """Trace the module on its example: for what dynamo cannot capture; branches are fixed as the example takes them."""
    torch, onnx = importlib.import_module("torch"), importlib.import_module("onnx")
    if by_name:
        order = list(inspect.signature(module.forward).parameters)
        batches = dict(
            sorted(batches.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order))
        )
    axes = {
        name: {0: "batch", **{axis: f"axis_{axis}" for axis in free_axes if axis < one.ndim}}
        for name, one in batches.items()
    }
    modes, file = torch.onnx.TrainingMode, io.BytesIO()
    torch.onnx.export(
        module, () if by_name else tuple(batches.values()), file, kwargs=dict(batches) if by_name else None, dynamo=False,
        opset_version=_OPSET, training=modes.EVAL if fold else modes.PRESERVE, input_names=list(batches),
        output_names=[_OUTPUT], dynamic_axes={**axes, _OUTPUT: {0: "batch"}},
    )  # fmt: skip
    model: ir.Model = importlib.import_module("onnx_ir").from_proto(onnx.load_from_string(file.getvalue()))
    return model


EXPORTERS: dict[str, Exporter] = {"dynamo": by_dynamo, "torchscript": by_torchscript}


def _optimize_around_batch_norm(model: Any) -> None:
    """Run the exporter's optimiser with batch normalisations out of its sight, in a domain of their own."""
    optimizer = importlib.import_module("onnxscript.optimizer")
    for node in model.graph:
        if node.op_type == "BatchNormalization":
            node.domain = _HIDDEN_DOMAIN
    model.graph.opset_imports[_HIDDEN_DOMAIN] = 1
    optimizer.optimize(model, onnx_shape_inference=False)
    for node in model.graph:
        if node.domain == _HIDDEN_DOMAIN:
            node.domain = ""
    model.graph.opset_imports.pop(_HIDDEN_DOMAIN, None)
