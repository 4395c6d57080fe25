"""onnxruntime: exactly one distribution is loaded, and exactly the providers asked for run."""

import os
import subprocess
import sys
import types
from importlib.util import find_spec

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from gradscore import ModelError, RuntimeUnavailableError
from gradscore.runtime import session
from gradscore.runtime.device import DeviceTensor


class Installed:
    """A stand-in for an installed distribution."""

    def __init__(self, name):
        self._name = name

    def read_text(self, filename):
        """Return the metadata under the file name of wheels, if there is any."""
        return f"Metadata-Version: 2.4\nName: {self._name}\n" if self._name and filename == "METADATA" else None


@pytest.fixture
def installation(monkeypatch):
    """Return a function that pretends that distributions are installed, and that importing gives a module."""

    def pretend(names, module=None):
        def import_module(name):
            if module is None:
                raise ModuleNotFoundError(f"No module named {name!r}")
            return module

        monkeypatch.setattr(session, "distributions", lambda: [Installed(name) for name in names])
        monkeypatch.setattr(session, "import_module", import_module)
        session.load_onnxruntime.cache_clear()

    yield pretend
    session.load_onnxruntime.cache_clear()


def test_no_runtime(installation):
    installation(["numpy", "onnxruntime-extensions", "onnxruntime-genai-cuda", None])
    with pytest.raises(
        RuntimeUnavailableError, match=r'no onnxruntime is installed: run `pip install "gradscore\[cpu\]"'
    ):
        session.load_onnxruntime()


def test_two_runtimes(installation):
    installation(["onnxruntime", "ONNXRuntime_GPU", "numpy"], types.ModuleType("onnxruntime"))
    with pytest.raises(RuntimeUnavailableError) as caught:
        session.load_onnxruntime()
    message = str(caught.value)
    assert "onnxruntime and onnxruntime-gpu overwrite one another's files" in message
    assert "`pip uninstall -y onnxruntime onnxruntime-gpu`" in message
    assert 'then `pip install "gradscore[cpu]"` or `pip install "gradscore[gpu]"`' in message


@pytest.mark.parametrize("name", ["onnxruntime", "onnxruntime-gpu", "onnxruntime_directml", "ort-nightly-gpu"])
def test_one_runtime_of_any_name_is_loaded_once(name, installation):
    levels = []
    module = types.SimpleNamespace(InferenceSession=object, set_default_logger_severity=levels.append)
    installation([name], module)
    assert session.load_onnxruntime() is module
    assert session.load_onnxruntime() is module
    assert levels == [3]


def test_a_runtime_that_does_not_import(installation):
    installation(["onnxruntime-gpu"])
    with pytest.raises(RuntimeUnavailableError, match="onnxruntime-gpu is installed but cannot be imported: No module"):
        session.load_onnxruntime()


def test_a_folder_without_files_after_a_clash_is_refused(installation):
    """After one of two is uninstalled, a folder without files remains, which Python imports as a namespace."""
    installation(["onnxruntime"], types.ModuleType("onnxruntime"))
    with pytest.raises(
        RuntimeUnavailableError, match=r"lost its files: run `pip install --force-reinstall onnxruntime`"
    ):
        session.load_onnxruntime()


def doubling():
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "doubling", value[:1], value[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_a_missing_provider_is_an_error_never_a_fallback():
    with pytest.raises(RuntimeUnavailableError) as caught:
        session.open_session(doubling().SerializeToString(), providers=["TensorrtExecutionProvider"])
    message = str(caught.value)
    assert message.startswith("provider TensorrtExecutionProvider is not in the installed onnxruntime")
    assert "CPUExecutionProvider" in message
    assert "--providers" in message


def test_a_provider_that_does_not_start_is_an_error(monkeypatch, capsys):
    real = session.load_onnxruntime()

    class Falling(real.InferenceSession):
        def __init__(self, model, options, providers, provider_options):
            assert provider_options[0]["use_tf32"] == "0"
            super().__init__(model, options, providers=["CPUExecutionProvider"])

    fake = types.SimpleNamespace(
        InferenceSession=Falling, SessionOptions=real.SessionOptions, preload_dlls=lambda: print("no libcudart.so"),
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )  # fmt: skip
    monkeypatch.setattr(session, "load_onnxruntime", lambda: fake)
    with pytest.raises(RuntimeUnavailableError, match="CUDAExecutionProvider is installed but did not start"):
        session.open_session(doubling().SerializeToString(), providers=["CUDAExecutionProvider"])
    assert capsys.readouterr().out == ""  # the runtime's text about its libraries must not reach the user's output


def test_a_model_that_does_not_load(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"\x08\x07garbage")
    for model in (tmp_path / "x.onnx", b"\x08\x07garbage"):
        with pytest.raises(ModelError, match="onnxruntime cannot load the model") as caught:
            session.open_session(model)
        assert "\n" not in str(caught.value)


def test_a_session_has_a_thread_for_each_usable_core_unless_told(monkeypatch):
    monkeypatch.setattr(session, "usable_cores", lambda: 3)
    model = doubling().SerializeToString()
    found = [session.open_session(model, threads=threads).get_session_options() for threads in (None, 1)]
    assert [options.intra_op_num_threads for options in found] == [3, 1]


def test_signals_hold_the_outputs_and_the_inputs(tmp_path):
    onnx.save(doubling(), tmp_path / "x.onnx")
    opened = session.SignalSession(tmp_path / "x.onnx", threads=1)
    assert opened.providers == ("CPUExecutionProvider",)
    batch = np.ones((3, 2), dtype=np.float32)
    signals = opened.run({"x": batch})
    assert signals["x"] is batch
    np.testing.assert_array_equal(signals["y"], 2 * batch)


def test_what_is_bound_stays_where_it_was_computed(tmp_path):
    onnx.save(doubling(), tmp_path / "x.onnx")
    opened = session.SignalSession(tmp_path / "x.onnx", threads=1)
    batch = np.arange(6, dtype=np.float32).reshape(3, 2)
    fetched = opened.run_on_device({"x": batch}, "cpu", fetched={"y"})
    assert isinstance(fetched["x"], DeviceTensor)
    np.testing.assert_array_equal(fetched["y"], 2 * batch)
    held = opened.run_on_device({"x": batch}, "cpu", fetched=set())["y"].__cuda_array_interface__
    assert (held["shape"], held["typestr"]) == ((3, 2), "<f4")


def test_cuda_kernels_read_signals_where_they_lie(prepared):
    """From bound outputs to features on numba's simulator, whose device memory is on the host."""
    if find_spec("numba_cuda") is None:
        pytest.skip("numba-cuda is not installed")
    import torch

    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(8, 3)
    )
    model = prepared("bound", module.eval(), torch.zeros(2, 1, 6, 6))
    program = (
        "import sys, numpy as np\n"
        "from gradscore import Scorer\n"
        "from gradscore.runtime import session\n"
        "from gradscore.runtime.device import DEVICES\n"
        "DEVICES['CPUExecutionProvider'] = 'cpu'\n"
        "seen, run = [], session.SignalSession.run_on_device\n"
        "def watched(self, *given, **options):\n"
        "    signals = run(self, *given, **options)\n"
        "    seen.extend(type(value).__name__ for value in signals.values())\n"
        "    return signals\n"
        "session.SignalSession.run_on_device = watched\n"
        "x = np.random.default_rng(0).standard_normal((2, 1, 6, 6)).astype(np.float32)\n"
        "found, wanted = (Scorer.load(sys.argv[1], backend=name, threads=1).score(x).features for name in ('cuda', 'reference'))\n"
        "np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-7)\n"
        "print(seen.count('DeviceTensor'), seen.count('ndarray'))\n"
    )
    variables = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, model], env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    on_device, fetched = map(int, done.stdout.split())
    assert on_device >= 4
    assert fetched == 2


def test_batches_that_often_come_alone_get_a_session_on_all_threads(tmp_path, monkeypatch):
    onnx.save(doubling(), tmp_path / "x.onnx")
    opened = []
    plain = session.open_session
    monkeypatch.setattr(session, "open_session", lambda *a, **k: opened.append(k["threads"]) or plain(*a, **k))
    signals = session.SignalSession(tmp_path / "x.onnx", threads=2)
    batch = {"x": np.ones((1, 2), np.float32)}
    for _ in range(5):
        np.testing.assert_array_equal(signals.run_alone(batch)["y"], signals.run(batch)["y"])
    assert opened == [1, 2]
    single = session.SignalSession(tmp_path / "x.onnx", threads=1)
    for _ in range(5):
        single.run_alone(batch)
    assert opened == [1, 2, 1]
