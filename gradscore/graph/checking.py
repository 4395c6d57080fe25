"""Pass 7: prove a scoring model before it is written.

Requires: a finished scoring model. Ensures: standard operators only, valid by the ONNX checker, and at batch sizes 1 and 3
the runtime gives the classifier's own logits, the same rows in both, and one row of every signal for each sample.
"""

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from gradscore.errors import ModelError
from gradscore.graph.lowering import is_standard
from gradscore.graph.probing import random_input
from gradscore.metadata import ModelMetadata
from gradscore.session import SignalSession

_RTOL = 1e-4


def check_structure(model: ir.Model, proto: onnx.ModelProto) -> None:
    """Refuse a scoring model that is not plain, valid ONNX."""
    foreign = [node for node in model.graph if not is_standard(node)]
    if foreign:
        raise ModelError(f"node {foreign[0].name!r} ({foreign[0].op_type}) is not standard ONNX: please report this model")
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"the scoring model is invalid ({str(error).strip().splitlines()[0]}): please report it") from error


def check_outputs(classifier: bytes, scoring: bytes, metadata: ModelMetadata) -> int:
    """Run both models on random inputs and compare; returns the bytes that the scoring model puts out for one sample."""
    reference = SignalSession(classifier)
    session = SignalSession(scoring)
    if metadata.one_at_a_time:
        return _check_single(reference, session, metadata)
    batch = {tensor.name: random_input(tensor.shape, np.dtype(tensor.dtype), 3) for tensor in metadata.inputs}
    try:
        expected = reference.run(batch)[metadata.logits]
        whole = session.run(batch)
        single = session.run({name: values[:1] for name, values in batch.items()})
    except Exception as error:  # onnxruntime raises many types of its own
        raise ModelError(
            f"the model does not run at batch sizes 1 and 3 ({str(error).splitlines()[0][:300]}): "
            "export it with a dynamic batch dimension"
        ) from error
    _compare("logits", whole[metadata.logits], expected)
    for name, values in whole.items():
        if values.shape[:1] != (3,):
            raise ModelError(
                f"value {name!r} has shape {list(values.shape)} for a batch of 3: the model mixes samples, or flattens the "
                "batch with another dimension"
            )
        _compare(name, single[name], values[:1])
    return sum(values.nbytes for values in single.values())


def _check_single(reference: SignalSession, session: SignalSession, metadata: ModelMetadata) -> int:
    batch = {tensor.name: random_input(tensor.shape, np.dtype(tensor.dtype), 1) for tensor in metadata.inputs}
    single = session.run(batch)
    _compare("logits", single[metadata.logits], reference.run(batch)[metadata.logits])
    return sum(values.nbytes for values in single.values())


def _compare(what: str, actual: NDArray[np.generic], expected: NDArray[np.generic]) -> None:
    scale = float(np.max(np.abs(expected), initial=0.0)) or 1.0
    if actual.shape != expected.shape or not np.allclose(actual, expected, rtol=_RTOL, atol=_RTOL * scale, equal_nan=True):
        raise ModelError(f"the scoring model's {what!r} differs from the classifier's own, or between batch sizes: please report it")
