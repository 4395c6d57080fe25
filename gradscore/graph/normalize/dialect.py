"""Pass 1: any classifier into the dialect that the later passes know.

Requires: a checked model. Ensures: one graph without functions or subgraphs, opset `OPSET`, a symbolic batch dimension,
constants as initializers, nothing in half precision, no Identity or Dropout, explicit pads, norm layers as plain
arithmetic, shapes inferred.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
from onnx import ModelProto, inliner, version_converter

from gradscore.errors import ModelError, UnsupportedOpError
from gradscore.graph.nodes.emitter import MODULE_KEY, UNSHARED_KEY, Emitter, replace_node
from gradscore.graph.nodes.naming import module_of
from gradscore.graph.nodes.probing import BATCH, probe_shapes
from gradscore.graph.nodes.requirements import refusal
from gradscore.graph.normalize.branches import take_constant_branches
from gradscore.graph.normalize.decompositions import RULES, SHAPED_RULES, Rule
from gradscore.graph.normalize.folding import fold_constants
from gradscore.graph.normalize.widening import widen

OPSET = 18
IR_VERSION = 10
_OLDEST_OPSET = 7
_DEFAULT_DOMAINS = ("", "ai.onnx")
INPUT_TYPES = ("float16", "float32", "int32", "int64")
_WITH_RULES = (
    "GroupNormalization",
    "RMSNormalization",
)  # newer than `OPSET` or changed since, and decomposed by a rule
_SUBGRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def normalize(proto: ModelProto, weights: Mapping[str, ir.TensorProtocol] = MappingProxyType({})) -> ir.Model:
    """Bring a classifier into the pipeline's dialect; `weights` are those that stand as inputs in the message.

    Raises
    ------
    ModelError
        The opset is out of range, or the graph cannot be expressed in opset `OPSET`.
    UnsupportedOpError
        A node is of a custom domain or holds a subgraph.
    """
    _refuse_maps(proto)
    try:
        model = ir.from_proto(_to_opset(proto))
    except ir.serde.SerdeError as error:
        raise ModelError(f"the model cannot be read ({_first_line(error)}): export it again") from error
    _attach(model.graph, weights)
    common_passes.InlinePass()(model)
    _drop_foreign_outputs(model)
    _default_domain_only(model)
    common_passes.RemoveInitializersFromInputsPass()(model)
    _free_batch_dimension(model.graph)
    take_constant_branches(model)
    _refuse_operators(model.graph)
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common_passes.RemoveUnusedNodesPass()(model)
    widen(model)
    fold_constants(model)
    infer_shapes(model)
    _decompose(model, RULES)
    common_passes.RemoveUnusedNodesPass()(model)
    _decompose(probe_shapes(infer_shapes(model)), SHAPED_RULES)
    _unshare_constants(model.graph)
    common_passes.RemoveUnusedNodesPass()(model)
    _check_dialect(model.graph)
    return probe_shapes(infer_shapes(model))


def _attach(graph: ir.Graph, weights: Mapping[str, ir.TensorProtocol]) -> None:
    inputs = {str(value.name): value for value in graph.inputs}
    for name, tensor in weights.items():
        inputs[name].const_value = tensor
        graph.initializers[name] = inputs[name]


def infer_shapes(model: ir.Model) -> ir.Model:
    """Infer the shape of every value from its inputs' shapes, in place."""
    for node in model.graph:
        for value in node.outputs:
            if value.type is None:  # a shape without a type cannot be written
                value.shape = None
    common_passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    return model


def _to_opset(proto: ModelProto) -> ModelProto:
    version = next((entry.version for entry in proto.opset_import if entry.domain in _DEFAULT_DOMAINS), None)
    if version is None or version < _OLDEST_OPSET:
        raise ModelError(f"the model's opset is {version}, this needs {_OLDEST_OPSET} or newer: export it again")
    if version < OPSET:
        return _converted(proto, version)
    return _relabelled(proto, version) if version > OPSET else proto


def _converted(proto: ModelProto, version: int) -> ModelProto:
    try:
        return version_converter.convert_version(proto, OPSET)
    except (RuntimeError, version_converter.ConvertError) as error:
        raise ModelError(
            f"the model's opset {version} cannot be raised to {OPSET} ({_first_line(error)}): export it with opset {OPSET}"
        ) from error


def _relabelled(proto: ModelProto, version: int) -> ModelProto:
    """Declare a newer model to be of opset `OPSET`: what is new since is expanded, most of the rest only gained types."""
    newer = [("", op) for op in sorted({node.op_type for node in proto.graph.node}) if _is_newer_function(op, version)]
    older = _expanded(proto, newer)
    older.ir_version = IR_VERSION
    for entry in older.opset_import:
        if entry.domain in _DEFAULT_DOMAINS:
            entry.version = OPSET
    return older


def _expanded(proto: ModelProto, functions: list[tuple[str, str]]) -> ModelProto:
    """Return a copy with operators replaced by the bodies that the specification gives them; bodies depend on types."""
    older = ModelProto()
    older.CopyFrom(proto)
    if not functions:
        return older
    typed = {value.name for value in (*older.graph.input, *older.graph.value_info)}
    older.graph.value_info.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in older.graph.initializer
        if tensor.name not in typed
    )
    try:
        inferred = onnx.shape_inference.infer_shapes(older)
        return inliner.inline_selected_functions(inferred, functions, inline_schema_functions=True)
    except RuntimeError as error:
        names = ", ".join(name for _, name in functions)
        raise ModelError(
            f"{names} cannot be expanded ({_first_line(error)}): export the model with opset {OPSET}"
        ) from error


def _is_newer_function(op_type: str, version: int) -> bool:
    if onnx.defs.has(op_type, OPSET, "") or op_type in _WITH_RULES:
        return False
    if not onnx.defs.has(op_type, version, ""):
        return False
    schema = onnx.defs.get_schema(op_type, version, "")
    return bool(schema.has_function or schema.has_context_dependent_function)  # type: ignore[attr-defined]  # not in the stubs


_REFUSED = dict.fromkeys(
    ("ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"),
    "computes in integers, which have no gradient: score the model before quantisation, or quantised in QDQ form",
) | dict.fromkeys(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
    "is random, so two runs predict two things: export the model in eval mode",
)


def _refuse_maps(proto: ModelProto) -> None:
    for output in proto.graph.output:
        if output.type.WhichOneof("value") in ("map_type", "sequence_type"):
            raise ModelError(
                f"output {output.name!r} is a list or a map, not a tensor: convert the model without ZipMap (in skl2onnx: "
                "options={'zipmap': False})"
            )


def _refuse_operators(graph: ir.Graph) -> None:
    for node in graph:
        if node.op_type in _REFUSED:
            raise refusal(node, _REFUSED[node.op_type])
        if any(item.type in _SUBGRAPHS for item in node.attributes.values()):
            raise refusal(node, "has a subgraph: export the model without data-dependent control flow")


def _drop_foreign_outputs(model: ir.Model) -> None:
    """Leave out the outputs that a custom domain makes, where others remain.

    Converters of classical models put the labels' names beside the probabilities that way.
    """
    graph = model.graph
    standard = [value for value in graph.outputs if not _is_foreign(value)]
    if standard and len(standard) < len(graph.outputs):
        graph.outputs.clear()
        graph.outputs.extend(standard)
    common_passes.RemoveUnusedNodesPass()(model)


def _is_foreign(value: ir.Value) -> bool:
    seen: set[ir.Node] = set()
    waiting = [value.producer()]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if node.domain not in _DEFAULT_DOMAINS:
            return True
        seen.add(node)
        waiting.extend(source.producer() for source in node.inputs if source is not None)
    return False


def _default_domain_only(model: ir.Model) -> None:
    model.ir_version = IR_VERSION
    for domain in [key for key in model.graph.opset_imports if key not in _DEFAULT_DOMAINS]:
        del model.graph.opset_imports[domain]
    for node in model.graph:
        if node.domain not in _DEFAULT_DOMAINS:
            raise UnsupportedOpError(
                f"node {node.name!r} is {node.domain}.{node.op_type}, of a custom domain: export the model with standard "
                "operators only"
            )


def _check_dialect(graph: ir.Graph) -> None:
    """Refuse what opset `OPSET` does not have: operators, attributes and inputs of newer ones that no rule took away."""
    for node in graph:
        if not onnx.defs.has(node.op_type, OPSET, ""):
            raise refusal(node, f"is not in opset {OPSET}: export the model with opset {OPSET}")
        schema = onnx.defs.get_schema(node.op_type, OPSET, "")
        newer = [name for name in node.attributes if name not in schema.attributes]
        if newer or len(node.inputs) > schema.max_input:
            what = f"has the attribute {newer[0]}" if newer else f"has {len(node.inputs)} inputs"
            raise refusal(node, f"{what}, unknown to opset {OPSET}: export the model with opset {OPSET}")


def _free_batch_dimension(graph: ir.Graph) -> None:
    """Make the first dimension of every input symbolic, and forget the shapes that followed from a fixed one."""
    for value in graph.inputs:
        if value.shape is None or not value.shape:
            raise ModelError(f"input {value.name!r} has no batch dimension: export the model with a batched input")
        if value.dtype is None or str(value.dtype.numpy()) not in INPUT_TYPES:
            raise ModelError(
                f"input {value.name!r} is of type {value.dtype}: inputs of {', '.join(INPUT_TYPES)} are covered"
            )
        value.shape = ir.Shape([BATCH, *list(value.shape)[1:]])
    for node in graph:
        for value in node.outputs:
            value.shape = None


def _decompose(model: ir.Model, rules: dict[str, Rule]) -> None:
    graph = model.graph
    for node in list(graph):
        rule = rules.get(node.op_type)
        if rule is None:
            continue
        before = set(graph)
        replacement = rule(node, Emitter(graph, node.op_type, node))
        module = module_of(node)
        inherited = {**node.metadata_props, **({MODULE_KEY: module} if module else {})}
        for fresh in graph:
            if fresh not in before:
                fresh.metadata_props.update({**inherited, **fresh.metadata_props})
        if replacement is not None:
            replace_node(node, replacement)


def _unshare_constants(graph: ir.Graph) -> None:
    """Give each user of a weight that is one number throughout its own copy.

    Exporters keep one tensor for equal ones, such as all the scales of ones and the biases of zeros in a fresh network;
    truly shared weights differ from number to number.
    """
    for name, value in list(graph.initializers.items()):
        uses = list(value.uses())
        tensor = value.const_value
        if (
            tensor is None
            or len(uses) < 2
            or value.dtype is None
            or not value.dtype.is_floating_point()
            or tensor.size < 2
        ):
            continue
        array = tensor.numpy()
        if np.ptp(array) != 0:
            continue
        for number, use in enumerate(uses[1:], start=2):
            copy = ir.Value(
                name=f"{name}/use_{number}", shape=value.shape, type=value.type, metadata_props=dict(value.metadata_props),
                const_value=ir.tensor(array, name=f"{name}/use_{number}"),
            )  # fmt: skip
            copy.metadata_props[UNSHARED_KEY] = "1"
            graph.register_initializer(copy)
            use.node.replace_input_with(use.idx, copy)
        value.metadata_props[UNSHARED_KEY] = "1"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
