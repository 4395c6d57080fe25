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
from gradscore.session import open_session

_RTOL = 1e-4
_SEED = 20180207


def check_structure(model: ir.Model, proto: onnx.ModelProto) -> None:
    """Refuse a scoring model that is not plain, valid ONNX."""
    foreign = [node for node in model.graph if not is_standard(node)]
    if foreign:
        raise ModelError(f"node {foreign[0].name!r} ({foreign[0].op_type}) is not standard ONNX: please report this model")
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"the scoring model is invalid ({str(error).strip().splitlines()[0]}): please report it") from error


def check_outputs(classifier: bytes, scoring: bytes, logits: str, input_shape: tuple[int | None, ...]) -> None:
    """Run both models on random inputs and compare."""
    batch = random_input(input_shape, 3)
    reference = open_session(classifier, providers=["CPUExecutionProvider"])
    session = open_session(scoring, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    outputs = [output.name for output in session.get_outputs()]
    try:
        expected = reference.run([logits], {name: batch})[0]
        whole = dict(zip(outputs, session.run(outputs, {name: batch}), strict=True))
        single = dict(zip(outputs, session.run(outputs, {name: batch[:1]}), strict=True))
    except Exception as error:  # onnxruntime raises many types of its own
        raise ModelError(
            f"the model does not run at batch sizes 1 and 3 ({str(error).splitlines()[0][:300]}): "
            "export it with a dynamic batch dimension"
        ) from error
    _compare("logits", whole[logits], expected)
    for output in outputs:
        if whole[output].shape[:1] != (3,):
            raise ModelError(
                f"value {output!r} has shape {list(whole[output].shape)} for a batch of 3: the model mixes samples, or "
                "flattens the batch with another dimension"
            )
        _compare(output, single[output], whole[output][:1])


def random_input(shape: tuple[int | None, ...], batch: int) -> NDArray[np.float32]:
    """Return reproducible standard-normal input; an extent that is unknown becomes 8."""
    extents = [8 if extent is None else extent for extent in shape[1:]]
    return np.random.default_rng(_SEED).standard_normal((batch, *extents)).astype(np.float32)


def _compare(what: str, actual: NDArray[np.generic], expected: NDArray[np.generic]) -> None:
    scale = float(np.max(np.abs(expected), initial=0.0)) or 1.0
    if actual.shape != expected.shape or not np.allclose(actual, expected, rtol=_RTOL, atol=_RTOL * scale, equal_nan=True):
        raise ModelError(f"the scoring model's {what!r} differs from the classifier's own, or between batch sizes: please report it")
