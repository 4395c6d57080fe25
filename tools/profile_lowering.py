"""Profile of a graph before and after lowering: training operators against standard ones.

Usage: python -m tools.profile_lowering. It profiles the paper's CNN and ResNet-18 with onnxruntime's own profiler on one
thread. The graph before lowering runs in the gradient builder's runtime, the only one with kernels for it. The lowered
graph runs in this environment's runtime. Both compute the signals of the same layers, and run in turn. The program
writes tools/results/lowering.md.
"""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from gradscore.bench.workloads import make_ready
from gradscore.graph.differentiate import builder
from gradscore.graph.differentiate.engines import ENGINES
from gradscore.graph.differentiate.gradient import add_gradient
from gradscore.graph.layers.discovery import find_layers
from gradscore.graph.nodes.reading import read_classifier
from gradscore.graph.normalize.dialect import normalize
from gradscore.graph.normalize.head import append_seed, cut_at, find_head

RESULTS = Path(__file__).parent / "results" / "lowering.md"
MODELS = {"paper-cnn": 32, "resnet18": 8}
ROUNDS, RUNS = 3, 20
_PROFILER = """
import sys
if sys.argv[5]:
    sys.path.insert(0, sys.argv[5])
import numpy as np
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads, options.enable_profiling, options.profile_file_prefix = 1, True, sys.argv[3]
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
name, rows = session.get_inputs()[0].name, np.load(sys.argv[2])
for _ in range(int(sys.argv[4])):
    session.run(None, {name: rows})
print(session.end_profiling())
"""


def main() -> None:
    """Profile both models and write the table."""
    with tempfile.TemporaryDirectory() as place:
        sections = [line for name, batch in MODELS.items() for line in _section(name, batch, Path(place) / name)]
    RESULTS.write_text("\n".join([*_heading(), *sections]) + "\n", encoding="utf-8")
    sys.stdout.write(f"wrote {RESULTS}\n")


def _section(name: str, batch: int, folder: Path) -> Iterator[str]:
    workload = make_ready(name, folder, threads=1)
    np.save(folder / "rows.npy", workload.batch[:batch])
    emitted = folder / "emitted.onnx"
    onnx.save(ir.to_proto(_emitted(workload.onnx)), emitted)
    sides = {"before": (emitted, str(builder.status().path)), "after": (workload.scoring, "")}
    found: dict[str, list[Counter[str]]] = {side: [] for side in sides}
    for _ in range(ROUNDS):
        for side, (model, site) in sides.items():
            found[side].append(_profile(model, folder, site, batch))
    best = {side: min(rounds, key=lambda times: times.total()) for side, rounds in found.items()}
    yield from _table(workload.classifier.title, batch, best["before"], best["after"])


def _emitted(classifier: Path) -> ir.Model:
    """Return the classifier with gradients as the builder emits them, and signals as outputs."""
    read = read_classifier(classifier)
    model = normalize(read.proto, read.weights)
    head = find_head(model.graph)
    cut_at(model, head.logits)
    layers, _ = find_layers(model.graph)
    forms = [parameter.form for layer in layers for parameter in layer.parameters]
    gradient = add_gradient(model, head.logits, forms, ENGINES["ort-training"])
    graph = gradient.model.graph
    append_seed(graph, gradient.logits, gradient.seed, head.classes)
    graph.inputs.remove(gradient.seed)
    common_passes.RemoveUnusedNodesPass()(gradient.model)
    common_passes.TopologicalSortPass()(gradient.model)
    graph.opset_imports["com.microsoft"] = 1
    return gradient.model


def _profile(model: Path, folder: Path, site: str, batch: int) -> Counter[str]:
    """Return microseconds per sample by operator."""
    command = [sys.executable, *(["-I", "-S"] if site else []), "-c", _PROFILER, str(model), str(folder / "rows.npy")]
    done = subprocess.run(
        [*command, str(folder / "profile"), str(RUNS), site], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{model.name} does not run: {done.stderr.strip().splitlines()[-1]}")
    path = Path(done.stdout.strip().splitlines()[-1])
    events = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    kernels = [item for item in events if item.get("cat") == "Node" and item["name"].endswith("_kernel_time")]
    times: Counter[str] = Counter()
    for item in kernels[len(kernels) // RUNS :]:  # the first run warms up
        times[item["args"]["op_name"]] += item["dur"] / (RUNS - 1) / batch
    return times


def _heading() -> list[str]:
    return [
        "# Before and after lowering",
        "",
        "Microseconds per sample by operator, from onnxruntime's own profiler, one thread, written by",
        "`python -m tools.profile_lowering`: forward and backward to the layers' outputs, without statistics. Before: the graph",
        f"of the gradient builder, in its own runtime (onnxruntime-training {builder.VERSION}). After: the scoring model, in stock",
        "onnxruntime. Its graph keeps δ behind max pools at the size of the pool's output. The kernels pass δ from one pool back",
        "to the next, which is not counted here (benchmark.md has the total). Best of three rounds taken in turn.",
    ]


def _table(title: str, batch: int, before: Counter[str], after: Counter[str]) -> Iterator[str]:
    yield from ("", f"## {title}, batch {batch}", "", "| operator | before | after |", "|---|---|---|")
    for operator, _ in (before | after).most_common():
        cells = [f"{times[operator]:.1f}" if operator in times else "" for times in (before, after)]
        yield f"| {operator} | {cells[0]} | {cells[1]} |"
    yield f"| **all** | **{before.total():.1f}** | **{after.total():.1f}** |"


if __name__ == "__main__":
    main()
