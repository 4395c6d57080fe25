"""A scoring model is plain ONNX: it runs in stock onnxruntime, and the runtime's optimiser changes nothing."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from gradscore.model.metadata import METADATA_KEY, ModelMetadata
from models.digits_cnn import DigitsCNN
from models.mlp import MLP
from models.paper_cnn import PaperCNN

CASES = {"paper": (PaperCNN, (1, 28, 28)), "digits": (DigitsCNN, (1, 8, 8)), "mlp": (MLP, (20,))}
TRAINING = ("Grad", "Training", "YieldOp", "Optimizer")


@pytest.fixture(params=CASES)
def scoring(request, prepared):
    factory, shape = CASES[request.param]
    torch.manual_seed(3)
    return prepared(request.param, factory().eval(), torch.zeros(2, *shape)), shape


def test_no_node_is_foreign_or_of_training(scoring):
    model = onnx.load(scoring[0])
    assert {opset.domain for opset in model.opset_import} == {""}
    assert not model.functions
    assert not model.training_info
    for node in model.graph.node:
        assert node.domain in ("", "ai.onnx"), node.op_type
        assert not any(word in node.op_type for word in TRAINING), node.op_type
        assert onnx.defs.has(node.op_type, model.opset_import[0].version, ""), node.op_type
        assert all(attribute.type != onnx.AttributeProto.GRAPH for attribute in node.attribute)


def test_it_is_valid_one_file_and_of_a_wide_spread_opset(scoring):
    path, _ = scoring
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path, load_external_data=False)
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)
    assert model.opset_import[0].version <= 18
    assert model.ir_version <= 10


def test_its_batch_is_dynamic(scoring):
    model = onnx.load(scoring[0])
    (given,) = model.graph.input
    assert given.type.tensor_type.shape.dim[0].dim_param
    assert not given.type.tensor_type.shape.dim[0].HasField("dim_value")


def outputs(path, level, inputs):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: inputs}), strict=True))


class Residual(nn.Module):
    """An addition and a layer normalisation behind it, which onnxruntime makes one node."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm, self.head = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, tokens):
        return self.head(self.norm(tokens + self.layer(tokens)).mean(1))


def test_no_second_output_of_a_layer_normalisation_is_read(prepared):
    """CUDA's SkipLayerNormalization does not write them, nor do other vendors' providers."""
    path = prepared("residual", Residual().eval(), torch.zeros(2, 4, 8))
    norms = [node for node in onnx.load(path).graph.node if node.op_type == "LayerNormalization"]
    assert [len(node.output) for node in norms] == [1]


def test_the_optimiser_changes_nothing(scoring, rng):
    path, shape = scoring
    levels = onnxruntime.GraphOptimizationLevel
    inputs = rng.standard_normal((5, *shape)).astype(np.float32)
    plain, optimised = (outputs(path, level, inputs) for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_ALL))
    assert plain.keys() == optimised.keys()
    metadata = {item.key: item.value for item in onnx.load(path).metadata_props}[METADATA_KEY]
    constants = ModelMetadata.from_json(metadata, where=str(path)).constants
    for name, value in plain.items():
        assert len(value) == 5 or name in constants, name
        scale = max(float(np.abs(value).max()), 1e-12)
        np.testing.assert_allclose(optimised[name], value, rtol=1e-5, atol=1e-5 * scale, err_msg=name)
