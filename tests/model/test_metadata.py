"""A scoring model's metadata to text and back, in this format and in format 1."""

import json
from dataclasses import replace

import pytest

from gradscore.model.layer_table import Layer, Parameter, Reduction
from gradscore.model.metadata import ModelMetadata
from gradscore.model.preprocessing import InputTensor

SEED = "seed/graph/Where_0_12"
DENSE = Layer(
    "fc",
    "Gemm",
    (Parameter("fc.weight", (5, 7), "outer"), Parameter("fc.bias", (5,), "direct")),
    (
        Reduction("outer", delta=SEED, activation="x", attributes={"outputs_first": True}),
        Reduction("direct", delta=SEED),
    ),
)
HIDDEN = Layer("hidden", "Gemm", (Parameter("b", (7,), "direct"),), (Reduction("direct", delta="x_grad"),))
MODEL = ModelMetadata(
    "1f", (InputTensor("x", (None, 7)),), "z", 5, (HIDDEN, DENSE), class_names=("a", "b", "c", "d", "e"), seed=SEED
)
KEYS = [
    "source_sha256", "inputs", "logits", "classes", "layers", "backsteps", "class_names", "preprocessing", "uncovered",
    "engine", "signal_bytes", "one_at_a_time", "outputs", "dropped_outputs", "weights_file", "weights_sha256",
    "gradscore_version", "format_version",
]  # fmt: skip


def read(raw):
    return ModelMetadata.from_json(json.dumps(raw), where="model")


def test_text_and_back():
    assert ModelMetadata.from_json(MODEL.to_json(), where="model") == MODEL


def test_a_file_holds_what_it_always_held():
    assert list(json.loads(MODEL.to_json())) == KEYS
    reductions = json.loads(MODEL.to_json())["layers"][1]["reductions"]
    assert [list(item) for item in reductions] == [["kernel", "delta", "activation", "attributes", "pooled"]] * 2


def test_the_first_format_is_read():
    raw = json.loads(MODEL.to_json())
    for added in ("backsteps", "outputs", "dropped_outputs", "weights_file", "weights_sha256"):
        del raw[added]
    assert read(raw | {"format_version": 1}) == replace(MODEL, format_version=1)


@pytest.mark.parametrize(
    ("layers", "seed"),
    [
        ((HIDDEN, DENSE), SEED),
        ((HIDDEN,), ""),
        ((), ""),
        ((replace(HIDDEN, reductions=(Reduction("direct", delta="seeds/x"),)),), ""),
        ((DENSE, replace(HIDDEN, reductions=(Reduction("direct", delta="seed/other"),))), ""),
    ],
)
def test_the_seed_is_found_by_its_name_in_a_file(layers, seed):
    assert read(json.loads(replace(MODEL, layers=layers).to_json())).seed == seed
