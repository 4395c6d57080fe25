"""From a torch module to one ONNX file; weights that cannot run anything."""

import json
import logging
import pickle
import sys
import textwrap

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from gradscore import GradscoreError, InputError, ModelError, OutputExistsError, export_classifier
from gradscore.exporting import export as exporting
from gradscore.exporting.export import load_module
from gradscore.exporting.torch_exporters import EXPORTERS
from gradscore.graph.nodes import storing
from gradscore.runtime.session import open_session
from models.digits_cnn import DigitsCNN

FACTORY = "models.digits_cnn:DigitsCNN"


@pytest.fixture
def small():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3))


@pytest.fixture
def user_code(tmp_path, monkeypatch):
    """Return a function that writes a module into the current folder."""
    monkeypatch.chdir(tmp_path)
    written = []

    def write(name, source):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        written.append(name)

    yield write
    for name in written:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("batch", [1, 2])
def test_one_file_with_a_dynamic_batch_in_eval_mode(batch, exporter, small, tmp_path, rng):
    names = ["a", "b", "ü"]
    export_classifier(small, torch.zeros(batch, 4), tmp_path / "c.onnx", class_names=names, exporter=exporter)
    assert [path.name for path in tmp_path.iterdir()] == ["c.onnx"]
    model = onnx.load(tmp_path / "c.onnx")
    assert {prop.key: prop.value for prop in model.metadata_props}["gradscore.class_names"] == json.dumps(
        ["a", "b", "ü"]
    )
    session = open_session(tmp_path / "c.onnx")
    small.eval()
    for size in (1, 5):
        inputs = rng.standard_normal((size, 4)).astype(np.float32)
        expected = small(torch.from_numpy(inputs)).detach().numpy()
        np.testing.assert_allclose(session.run(None, {"input": inputs})[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_batch_norms_stay_unless_they_are_folded(exporter, tmp_path):
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten())
    for fold in (False, True):
        export_classifier(
            module,
            torch.zeros(2, 1, 5, 5),
            tmp_path / "c.onnx",
            fold_batch_norm=fold,
            exporter=exporter,
            overwrite=True,
        )
        operators = [node.op_type for node in onnx.load(tmp_path / "c.onnx").graph.node]
        assert ("BatchNormalization" in operators) is not fold


class Named(torch.nn.Module):
    """Two inputs, the second of free length; their order in the signature is not that of the example."""

    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(4, 3)

    def forward(self, row, steps):
        return self.fc(row) * steps.mean((1, 2))[:, None]


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_inputs_by_name_with_a_free_axis(exporter, tmp_path, rng):
    module = Named().eval()
    example = {"steps": torch.ones(2, 5, 6), "row": torch.ones(2, 4)}
    export_classifier(module, example, tmp_path / "c.onnx", free_axes=(2,), exporter=exporter)
    session = open_session(tmp_path / "c.onnx")
    row, steps = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 4), (3, 5, 9)))
    expected = module(torch.from_numpy(row), torch.from_numpy(steps)).detach().numpy()
    np.testing.assert_allclose(session.run(None, {"row": row, "steps": steps})[0], expected, rtol=1e-5, atol=1e-6)


def test_what_one_file_cannot_hold_lies_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(storing, "LARGEST_FILE", 100_000)
    module = torch.nn.Sequential(torch.nn.Linear(4, 6000), torch.nn.ReLU(), torch.nn.Linear(6000, 3)).eval()
    export_classifier(module, torch.zeros(2, 4), tmp_path / "c.onnx")
    assert len(list(tmp_path.glob("c.onnx.*.data"))) == 1
    actual = open_session(tmp_path / "c.onnx").run(None, {"input": np.ones((1, 4), np.float32)})[0]
    np.testing.assert_allclose(actual, module(torch.ones(1, 4)).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_training_modes_come_back_as_they_were(small, tmp_path):
    small.train()
    small[2].eval()  # a frozen part of a module in training
    export_classifier(small, torch.zeros(2, 4), tmp_path / "c.onnx")
    assert [part.training for part in small] == [True, True, False, True]
    with pytest.raises(ModelError):
        export_classifier(small, torch.zeros(2, 5), tmp_path / "d.onnx")
    assert [part.training for part in small] == [True, True, False, True]


def test_a_failure_is_one_line_and_silent(small, tmp_path, capfd):
    with pytest.raises(ModelError, match=r"^torch cannot export Sequential: RuntimeError: ") as caught:
        export_classifier(small, torch.zeros(2, 5), tmp_path / "c.onnx")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert logging.root.manager.disable == logging.NOTSET


def test_an_existing_file_needs_the_flag(small, tmp_path):
    (tmp_path / "c.onnx").write_bytes(b"old")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        export_classifier(small, torch.zeros(2, 4), tmp_path / "c.onnx")
    assert (tmp_path / "c.onnx").read_bytes() == b"old"
    export_classifier(small, torch.zeros(2, 4), tmp_path / "c.onnx", overwrite=True)
    assert onnx.load(tmp_path / "c.onnx").graph.node


def test_examples_and_names_that_cannot_be(small, tmp_path):
    with pytest.raises(InputError, match=r"shape \[4\]: give a batch"):
        export_classifier(small, torch.zeros(4), tmp_path / "c.onnx")
    with pytest.raises(InputError, match="class names repeat"):
        export_classifier(small, torch.zeros(2, 4), tmp_path / "c.onnx", class_names=["a", "b", "a"])


@pytest.mark.parametrize("package", ["torch", "onnxscript"])
def test_a_missing_package_is_named(package, small, tmp_path, monkeypatch):
    real = exporting.importlib.import_module

    def absent(*_, **__):
        raise ModuleNotFoundError(f"No module named {package!r}")

    if package == "torch":
        monkeypatch.setattr(
            exporting.importlib, "import_module", lambda name: absent() if name == "torch" else real(name)
        )
    else:
        monkeypatch.setattr(torch.onnx, "export", absent)
    with pytest.raises(GradscoreError, match=rf'{package}.*run `pip install "gradscore\[export\]"`'):
        export_classifier(small, torch.zeros(2, 4), tmp_path / "c.onnx")


@pytest.mark.parametrize("nested", [None, "state_dict", "model_state_dict"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_are_loaded(suffix, nested, tmp_path):
    torch.manual_seed(5)
    state = DigitsCNN().state_dict()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state if nested is None else {nested: state, "epoch": 3}, path)
    loaded = load_module(FACTORY, path).state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


class Malice:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (exec, (f"open({str(self.path)!r}, 'w').write('run')",))


@pytest.mark.parametrize("how", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".pkl", ".safetensors"])
def test_a_file_that_would_run_code_is_refused_and_does_not(how, suffix, tmp_path):
    path, trace = tmp_path / f"weights{suffix}", tmp_path / "trace"
    how({"fc.weight": Malice(trace)}, path)
    with pytest.raises(InputError, match=r"without unpickling|not a safetensors file"):
        load_module(FACTORY, path)
    assert not trace.exists()


def test_weights_that_do_not_fit_or_are_none(tmp_path):
    torch.save(torch.nn.Linear(3, 3).state_dict(), tmp_path / "other.pt")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    torch.save(DigitsCNN(), tmp_path / "module.pt")
    (tmp_path / "text.pt").write_text("epoch 3")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    for name, message in {
        "other.pt": r"do not fit models\.digits_cnn:DigitsCNN: .*[Mm]issing key",
        "tensor.pt": "holds Tensor, not a state dict",
        "module.pt": r"without unpickling .*torch\.save\(module\.state_dict\(\), path\)",
        "text.pt": "without unpickling",
        "empty.safetensors": "is not a safetensors file",
        "absent.pt": "no such weights file",
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            load_module(FACTORY, tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("models.digits_cnn", "write package.module:factory"),
        (":DigitsCNN", "write package.module:factory"),
        ("models.digits_cnn:", "write package.module:factory"),
        ("models.absent:Net", r"cannot import 'models.absent' .*installed, or in the current folder"),
        ("models.digits_cnn:Digits", "models.digits_cnn has no 'Digits'"),
        ("json:JSONDecoder", "returned JSONDecoder, not a torch.nn.Module"),
        ("json:loads", "failed when called without arguments: TypeError: loads"),
    ],
)
def test_factories_that_cannot_be(factory, message):
    with pytest.raises(InputError, match=message):
        load_module(factory)


def test_a_factory_in_the_current_folder(user_code):
    user_code("my_net", "import torch\ndef build():\n    return torch.nn.Linear(4, 3)\n")
    before = list(sys.path)
    assert isinstance(load_module("my_net:build"), torch.nn.Linear)
    assert sys.path == before


def test_user_code_that_fails_is_quoted_in_one_line(user_code):
    user_code("broken_net", "def build(:\n")
    user_code("raising_net", "def build():\n    raise AttributeError('no such layer\\nmore')\n")
    with pytest.raises(InputError, match="cannot import 'broken_net': SyntaxError"):
        load_module("broken_net:build")
    with pytest.raises(InputError, match=r"raising_net:build failed .*: AttributeError: no such layer$"):
        load_module("raising_net:build")
