"""Heads, inputs, the fallback and raw gradients: what a classifier may look like around its layers."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from gradscore import InputError, ModelError, Scorer, export_classifier, prepare
from tests.support import oracle
from tests.support.zoo import gradients


class Binary(nn.Module):
    """One sigmoid logit: two classes."""

    def __init__(self, normalise=True):
        super().__init__()
        self.hidden = nn.Linear(5, 8)
        self.out = nn.Linear(8, 1)
        self.normalise = normalise

    def logit(self, x):
        return self.out(torch.relu(self.hidden(x)))

    def forward(self, x):
        return torch.sigmoid(self.logit(x)) if self.normalise else self.logit(x)


class TwoColumns(Binary):
    """The same as two logits (0, z), for the oracle."""

    def forward(self, x):
        z = self.logit(x)
        return torch.cat([torch.zeros_like(z), z], dim=1)


class LogSoftmaxed(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 4)

    def forward(self, x):
        return torch.log_softmax(self.fc(x), dim=-1)


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(5, 6)
        self.coarse = nn.Linear(6, 2)
        self.fine = nn.Linear(6, 4)

    def forward(self, x):
        x = torch.relu(self.body(x))
        return self.coarse(x), self.fine(x)


class Uncovered(nn.Module):
    """A stack of matrices, and a matrix of which only a part is used: no rule covers these."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Linear(6, 12)
        self.stack = nn.Parameter(torch.randn(3, 4, 4))
        self.wide = nn.Parameter(torch.randn(12, 9))

    def forward(self, x):
        x = torch.tanh(self.enter(x)).reshape(-1, 3, 1, 4)
        x = torch.tanh(torch.matmul(x, self.stack)).reshape(-1, 12)
        return x @ torch.tanh(self.wide)[:, :5]


def prepared_file(module, example, folder, **options):
    export_classifier(module, example, folder / "classifier.onnx")
    return prepare(folder / "classifier.onnx", folder / "scoring.onnx", **options), folder / "scoring.onnx"


@pytest.mark.parametrize("normalise", [True, False])
def test_one_logit_is_two_classes(normalise, tmp_path, rng):
    torch.manual_seed(1)
    module = Binary(normalise)
    options = {} if normalise else {"logits": "logits"}
    metadata, path = prepared_file(module, torch.zeros(2, 5), tmp_path, **options)
    assert metadata.classes == 2
    twin = TwoColumns()
    twin.load_state_dict(module.state_dict())
    inputs = rng.standard_normal((6, 5)).astype(np.float32)
    scores = Scorer.load(path).score(inputs)
    for row in range(6):
        label, expected = oracle.features_of(twin, inputs[row])
        assert scores.label[row] == label
        oracle.assert_features(dict(zip(scores.feature_names, scores.features[row], strict=True)), expected, rtol=1e-4)


def test_log_softmax_is_stripped(tmp_path, rng):
    module = LogSoftmaxed()
    _, path = prepared_file(module, torch.zeros(2, 5), tmp_path)
    inputs = rng.standard_normal((3, 5)).astype(np.float32)
    scores = Scorer.load(path).score(inputs)
    for row in range(3):
        _, expected = oracle.features_of(module, inputs[row])
        oracle.assert_features(dict(zip(scores.feature_names, scores.features[row], strict=True)), expected, rtol=1e-4)


def two_heads(path):
    """Both heads as outputs of one file; torch's exporter names them itself."""
    torch.manual_seed(2)
    module = TwoHeads()
    weights = {name: value.detach().numpy() for name, value in module.named_parameters()}
    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    nodes = [
        helper.make_node("Gemm", ["x", "body.weight", "body.bias"], ["b"], transB=1),
        helper.make_node("Relu", ["b"], ["r"]),
        helper.make_node("Gemm", ["r", "coarse.weight", "coarse.bias"], ["coarse"], transB=1),
        helper.make_node("Gemm", ["r", "fine.weight", "fine.bias"], ["fine"], transB=1),
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
        for name, size in (("coarse", 2), ("fine", 4))
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5])]
    graph = helper.make_graph(nodes, "heads", inputs, outputs, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def test_several_outputs_need_a_name_and_leave_the_rest_out(tmp_path):
    two_heads(tmp_path / "heads.onnx")
    with pytest.raises(ModelError, match=r"2 outputs .*coarse.*fine.*--logits NAME"):
        prepare(tmp_path / "heads.onnx", tmp_path / "scoring.onnx")
    with pytest.raises(ModelError, match="no output 'medium'"):
        prepare(tmp_path / "heads.onnx", tmp_path / "scoring.onnx", logits="medium")
    metadata = prepare(tmp_path / "heads.onnx", tmp_path / "scoring.onnx", logits="fine")
    assert [layer.name for layer in metadata.layers] == ["body", "fine"]
    assert metadata.classes == 4


def test_fallback_is_exact(tmp_path, rng):
    torch.manual_seed(3)
    module = Uncovered()
    metadata, path = prepared_file(module, torch.zeros(2, 6), tmp_path)
    coverage = {item.name: item.coverage for layer in metadata.layers for item in layer.parameters}
    assert coverage["stack"] == "fallback"
    assert metadata.one_at_a_time
    inputs = rng.standard_normal((4, 6)).astype(np.float32)
    scorer = Scorer.load(path)
    raw = {name: value for layer in scorer.layer_gradients(inputs).values() for name, value in layer.items()}
    scores = scorer.score(inputs)
    for row in range(4):
        label, by_name, _ = gradients(module, torch.tensor(inputs[row]))
        assert scores.label[row] == label
        np.testing.assert_allclose(raw["stack"][row].ravel(), by_name["stack"], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(raw["enter.weight"][row].ravel(), by_name["enter.weight"], rtol=1e-4, atol=1e-6)


def test_uncovered_parameters_can_be_left_out(tmp_path):
    metadata, path = prepared_file(Uncovered(), torch.zeros(2, 6), tmp_path, allow_uncovered=True)
    assert "stack" in {item.name for item in metadata.uncovered}
    assert not metadata.one_at_a_time
    assert Scorer.load(path).score(np.zeros((3, 6), dtype=np.float32)).features.shape == (
        3,
        len(metadata.feature_names),
    )


def test_raw_gradients_have_the_parameters_shapes(prepared, rng):
    from models.paper_cnn import PaperCNN

    torch.manual_seed(4)
    module = PaperCNN().eval()
    scorer = Scorer.load(prepared("paper-raw", module, torch.zeros(2, 1, 28, 28)))
    inputs = rng.standard_normal((3, 1, 28, 28)).astype(np.float32)
    found = scorer.layer_gradients(inputs, layers=["conv2", "fc"])
    assert list(found) == ["conv2", "fc"]
    for row in range(3):
        _, by_name, _ = gradients(module, torch.tensor(inputs[row]))
        for layer in found.values():
            for name, value in layer.items():
                wanted = by_name[name].reshape(dict(module.named_parameters())[name].shape)
                assert value[row].shape == wanted.shape
                np.testing.assert_allclose(value[row], wanted, rtol=1e-3, atol=1e-5 * np.abs(wanted).max())
    with pytest.raises(InputError, match="no layer 'conv9'"):
        scorer.layer_gradients(inputs, layers=["conv9"])


def test_text_of_any_length_with_a_mask(tmp_path, rng):
    import transformers as hf

    torch.manual_seed(5)
    config = hf.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, num_labels=3, architectures=["BertForSequenceClassification"],
    )  # fmt: skip
    module = hf.BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    module.save_pretrained(tmp_path / "checkpoint")

    from gradscore.exporting.huggingface import is_checkpoint, load_checkpoint

    assert is_checkpoint(tmp_path / "checkpoint")
    loaded = load_checkpoint(tmp_path / "checkpoint")
    export_classifier(
        loaded.module,
        loaded.example,
        tmp_path / "bert.onnx",
        class_names=loaded.class_names,
        free_axes=loaded.free_axes,
    )
    metadata = prepare(tmp_path / "bert.onnx", tmp_path / "scoring.onnx")
    assert [tensor.name for tensor in metadata.inputs] == ["input_ids", "attention_mask"]
    scorer = Scorer.load(tmp_path / "scoring.onnx")
    for length in (5, 12):
        ids = rng.integers(1, 50, (3, length))
        mask = np.ones_like(ids)
        mask[1, 4:] = 0
        scores = scorer.score({"input_ids": ids, "attention_mask": mask})
        short = scorer.score({"input_ids": ids[1:2], "attention_mask": mask[1:2]})
        np.testing.assert_allclose(short.features[0], scores.features[1], rtol=1e-3, atol=1e-5)
        logits = module(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)).logits
        np.testing.assert_array_equal(scores.label, logits.argmax(1).numpy())
    with pytest.raises(InputError, match="inputs input_ids, attention_mask"):
        scorer.score(ids)
