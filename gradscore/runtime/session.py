"""batch -> signals: runs onnxruntime on exactly the providers asked for."""

import logging
import os
import re
from collections.abc import Container, Mapping, Sequence
from contextlib import redirect_stdout
from functools import cache, partial
from importlib import import_module
from importlib.metadata import Distribution, distributions
from io import StringIO
from threading import Lock
from types import ModuleType
from typing import Any

from gradscore_kernels import usable_cores
from numpy.typing import NDArray

from gradscore.errors import ModelError, RuntimeUnavailableError
from gradscore.runtime.device import DeviceTensor

_log = logging.getLogger(__name__)

CPU_PROVIDER = "CPUExecutionProvider"
_PROVIDER_OPTIONS = {
    "CUDAExecutionProvider": {
        "use_tf32": "0",  # TF32 keeps 10 bits of a factor: skewness would be wrong by up to 0.08, and so would a verdict
        "cudnn_conv_algo_search": "HEURISTIC",  # as fast as an exhaustive search, which takes seconds for every shape
        "arena_extend_strategy": "kSameAsRequested",  # not by doubling: others use the device too
    }
}
_HABIT = 3  # batches that come alone before a second session pays
_NIGHTLY = "ort-nightly"
_NOT_A_RUNTIME = ("onnxruntime-extensions", "onnxruntime-genai", "onnxruntime-tools")
_INSTALL = '`pip install "gradscore[cpu]"` or `pip install "gradscore[gpu]"`'


@cache
def load_onnxruntime() -> ModuleType:
    """Import onnxruntime once, after making sure that exactly one distribution provides it.

    Raises
    ------
    RuntimeUnavailableError
        None is installed, several overwrite one another, or its files are damaged. The message holds the pip command that
        repairs it.
    """
    found = installed_runtimes()
    if len(found) > 1:
        raise RuntimeUnavailableError(
            f"{' and '.join(found)} overwrite one another's files: run `pip uninstall -y {' '.join(found)}`, "
            f"then {_INSTALL}"
        )
    try:
        module = import_module("onnxruntime")
    except ImportError as error:
        if not found:
            raise RuntimeUnavailableError(f"no onnxruntime is installed: run {_INSTALL}") from error
        raise RuntimeUnavailableError(f"{found[0]} is installed but cannot be imported: {error}") from error
    if not hasattr(module, "InferenceSession"):  # its files are gone after one of two distributions was uninstalled
        names = " ".join(found or ["onnxruntime"])
        raise RuntimeUnavailableError(f"onnxruntime has lost its files: run `pip install --force-reinstall {names}`")
    module.set_default_logger_severity(3)
    return module


def installed_runtimes() -> list[str]:
    """Return the sorted names of the installed distributions that provide the module `onnxruntime`."""
    names = {_name_of(distribution).lower().replace("_", "-") for distribution in distributions()}
    return sorted(
        name
        for name in names
        if (name == "onnxruntime" or name.startswith(("onnxruntime-", _NIGHTLY)))
        and not name.startswith(_NOT_A_RUNTIME)
    )


def _name_of(distribution: Distribution) -> str:
    """Return the name only: parsing all metadata of a hundred distributions takes longer than scoring an image."""
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    found = re.search(r"^Name:\s*(\S+)", text, re.MULTILINE | re.IGNORECASE)
    return found[1] if found else ""


def open_session(
    model: bytes | os.PathLike[str],
    *,
    providers: Sequence[str] | None = None,
    threads: int | None = None,
    optimize: bool = True,
) -> Any:
    """Open an inference session on exactly the providers asked for.

    Parameters
    ----------
    model
        The model's bytes, or its file.
    providers
        onnxruntime execution providers. Default: CPU.
    threads
        Number of threads of an operator. Default: all usable cores.
    optimize
        Whether the runtime optimises the graph.

    Raises
    ------
    RuntimeUnavailableError
        A provider is not in this onnxruntime, or it did not start.
    ModelError
        onnxruntime cannot load the model.
    """
    runtime = load_onnxruntime()
    wanted = list(providers or [CPU_PROVIDER])
    missing = [name for name in wanted if name not in runtime.get_available_providers()]
    if missing:
        raise RuntimeUnavailableError(
            f"provider {missing[0]} is not in the installed {', '.join(installed_runtimes()) or 'onnxruntime'} "
            f"(it has {', '.join(runtime.get_available_providers())}): choose one of these with --providers, "
            "or install gradscore[gpu]"
        )
    if "CUDAExecutionProvider" in wanted:
        _load_cuda(runtime)
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, so the runtime need not print them too
    options.intra_op_num_threads = usable_cores() if threads is None else threads  # the runtime sees no quota
    if not optimize:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # micro-batches share the cores
    try:
        source = model if isinstance(model, bytes) else os.fspath(model)
        session = runtime.InferenceSession(
            source, options, providers=wanted, provider_options=[_PROVIDER_OPTIONS.get(name, {}) for name in wanted]
        )
    except Exception as error:  # onnxruntime raises many types of its own
        raise ModelError(f"onnxruntime cannot load the model: {str(error).splitlines()[0][:400]}") from error
    silent = [name for name in wanted if name not in session.get_providers()]
    if silent:
        raise RuntimeUnavailableError(
            f"provider {silent[0]} is installed but did not start (driver, CUDA or cuDNN missing?): repair that, "
            f"or choose --providers {CPU_PROVIDER}"
        )
    return session


def _load_cuda(runtime: ModuleType) -> None:
    """Load CUDA and cuDNN from wheels, where the system's loader does not look."""
    said = StringIO()
    with redirect_stdout(said):  # it prints what is missing, but the machine may have that elsewhere
        runtime.preload_dlls()
    for line in said.getvalue().splitlines():
        _log.debug("onnxruntime: %s", line)


class SignalSession:
    """A scoring model in a session, which turns a batch into labels, logits and the signals of layers.

    On the CPU a batch runs on one thread: several batches on one thread each finish sooner than one after the other on all
    threads. After some batches that come alone, a second session opens for such batches and uses all threads.
    """

    def __init__(
        self,
        model: bytes | os.PathLike[str],
        *,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        optimize: bool = True,
    ) -> None:
        on_cpu = (providers or [CPU_PROVIDER])[0] == CPU_PROVIDER
        many = on_cpu and threads != 1 and not isinstance(model, bytes)  # a second session would keep the bytes
        self._session = open_session(model, providers=providers, threads=1 if on_cpu else threads, optimize=optimize)
        self._open_wide = partial(open_session, model, providers=providers, threads=threads, optimize=optimize)
        self._alone = 0 if many else None
        self._wide: Any = None
        self._lock = Lock()
        self._outputs = [output.name for output in self._session.get_outputs()]
        tensors = (*self._session.get_inputs(), *self._session.get_outputs())
        self._single = {tensor.name for tensor in tensors if tensor.type == "tensor(float)"}
        self._constants: dict[str, NDArray[Any]] = {}
        self._unfetched: list[str] = []
        self._options = load_onnxruntime().RunOptions()
        self._options.only_execute_path_to_fetches = True

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers in use."""
        return tuple(self._session.get_providers())

    def leave_out(self, outputs: Container[str]) -> None:
        """Stop computing these outputs."""
        self._outputs = [name for name in self._outputs if name not in outputs]

    def fetch_once(self, outputs: Container[str]) -> None:
        """Fetch these outputs only with the first batch, because they are the same for every batch."""
        self._unfetched = [name for name in self._outputs if name in outputs]
        self._outputs = [name for name in self._outputs if name not in outputs]

    def run(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return outputs and inputs by name; the inputs are those of the first layer."""
        return self._run(self._session, batch)

    def run_alone(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Like `run`, for a batch that may use all cores."""
        if self._alone is None:
            return self.run(batch)
        with self._lock:
            self._alone += 1
            if self._wide is None and self._alone > _HABIT:
                self._wide = self._open_wide()
        return self._run(self._wide or self._session, batch)

    def _run(self, session: Any, batch: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        missing = [name for name in self._unfetched if name not in self._constants]
        names = [*self._outputs, *missing]
        found = dict(zip(names, session.run(names, dict(batch), self._options), strict=True))
        self._constants |= {name: found[name] for name in missing}
        return {**batch, **found, **self._constants}

    def run_on_device(
        self, batch: Mapping[str, NDArray[Any]], device: str, *, fetched: Container[str]
    ) -> dict[str, NDArray[Any] | DeviceTensor]:
        """Like `run`, but on device memory.

        Inputs are copied to the device once. float32 inputs and outputs stay there, except those in `fetched`.
        """
        runtime = load_onnxruntime()
        inputs = {name: runtime.OrtValue.ortvalue_from_numpy(array, device, 0) for name, array in batch.items()}
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        outputs = [*self._outputs, *self._unfetched]
        resident = {name for name in (*inputs, *outputs) if name in self._single and name not in fetched}
        for name in outputs:
            binding.bind_output(name, device if name in resident else "cpu")
        binding.synchronize_inputs()
        self._session.run_with_iobinding(binding, self._options)
        binding.synchronize_outputs()
        values = {**inputs, **dict(zip(outputs, binding.get_outputs(), strict=True))}
        return {name: DeviceTensor(value) if name in resident else value.numpy() for name, value in values.items()}
