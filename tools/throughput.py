"""Throughput of reading alone, of scoring alone, and of the whole pipeline to a table.

Usage: python -m tools.throughput SCORING_MODEL OUTPUT_FOLDER [IDX_IMAGES | IMAGE_FOLDER]. An idx file, such as MNIST's
train-images-idx3-ubyte.gz, is first written out as one PNG per image. The stages run in turn over all images. A first
round, which loads the files into the page cache, is not counted. Reading alone uses the decoding stage of the pipeline.
Reading and scoring share the cores: `possible` is the ratio that CPU time alone would allow. Memory is measured in
separate processes, for a tenth of the images and for all, and includes their decoding processes. The last line of the
output is one JSON object.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median

import numpy as np
from gradscore_kernels import usable_cores
from PIL import Image

from gradscore import Scorer, open_source
from gradscore.inputs.arrays import open_idx
from gradscore.inputs.sources import ArrayRow, Source
from gradscore.runs.scoring_run import BATCH_SIZE, score_to_parquet

ROUNDS = 9
PEAK = """
import sys
from pathlib import Path
from gradscore import Scorer, open_source
from gradscore.runs.scoring_run import score_to_parquet
peaks = {}  # of this process and of those that it has started: `ru_maxrss` begins with what their parent held
def look(_):
    children = [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]
    for pid in ("self", *children):
        status = Path("/proc", pid, "status").read_text()
        peaks[pid] = int(status.partition("VmHWM:")[2].split()[0])
with Scorer.load(sys.argv[1]) as scorer:
    score_to_parquet(scorer, open_source([sys.argv[2]]), sys.argv[3], overwrite=True, progress=look)
look(None)
print(sum(peaks.values()) / 1024)
"""


def main() -> None:
    """Measure, and print the results."""
    model, out, images = map(Path, sys.argv[1:4])
    out.mkdir(parents=True, exist_ok=True)
    folder = images if images.is_dir() else _as_pngs(images, out / "png")
    source = open_source([folder])
    with Scorer.load(model) as scorer:
        found = [_round(scorer, source, out) for _ in range(1 + ROUNDS)][1:]
    for one in found:
        sys.stdout.write(
            ", ".join(f"{name} {rate:,.0f}/s, {cpu:.0f} µs CPU" for name, (rate, cpu) in one.items()) + "\n"
        )
    cores = usable_cores()
    slowest = [min(one["decode"][0], one["score"][0]) for one in found]
    stages = [one["decode"][1] + one["score"][1] for one in found]
    report = {
        "inputs": len(source), "ratio": median(one["pipeline"][0] / rate for one, rate in zip(found, slowest, strict=True)),
        "possible": median(min(1.0, cores / cpu * 1e6 / rate) for cpu, rate in zip(stages, slowest, strict=True)),
        "cpu_over_sum_of_stages": median(one["pipeline"][1] / cpu for one, cpu in zip(found, stages, strict=True)),
        "peak_mb_of_a_tenth": _peak(model, folder, out, len(source) // 10), "peak_mb": _peak(model, folder, out, len(source)),
    }  # fmt: skip
    sys.stdout.write(json.dumps(report) + "\n")


def _round(scorer: Scorer, source: Source, out: Path) -> dict[str, tuple[float, float]]:
    batch = np.stack([entry.read(scorer.metadata) for entry in source.entries[:BATCH_SIZE]])
    stages: dict[str, Callable[[], object]] = {
        "decode": lambda: _decode(scorer, source),
        "score": lambda: [scorer.score(batch) for _ in range(0, len(source), BATCH_SIZE)],
        "pipeline": lambda: score_to_parquet(scorer, source, out / "scores.parquet", overwrite=True),
    }
    return {name: _measured(stage, len(source)) for name, stage in stages.items()}


def _peak(model: Path, folder: Path, out: Path, count: int) -> float:
    """Return the peak resident memory of scoring `count` images, in MiB."""
    names = [str(entry.path) for entry in open_source([folder]).entries[:count]]  # type: ignore[attr-defined]  # entries of a folder have a path
    (out / "list.txt").write_text("\n".join(names), encoding="utf-8")
    command = [sys.executable, "-c", PEAK, str(model), f"@{out}/list.txt", str(out / "scores.parquet")]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _decode(scorer: Scorer, source: Source) -> None:
    with closing(scorer.read_ahead(source)) as batches:
        for _ in batches:
            pass


def _measured(stage: Callable[[], object], count: int) -> tuple[float, float]:
    """Return inputs per second, and microseconds of CPU time per input."""
    wall, cpu = time.perf_counter(), _cpu()
    stage()
    return count / (time.perf_counter() - wall), (_cpu() - cpu) / count * 1e6


def _cpu() -> float:
    """Return the CPU time of this process and of its ended children."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _as_pngs(images: Path, folder: Path) -> Path:
    for index, entry in enumerate(open_idx(images)):
        assert isinstance(entry, ArrayRow)  # noqa: S101 - idx files hold nothing else
        path = folder / entry.id.partition("/")[0] / f"{index:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(entry.rows[index : index + 1][0]).save(path)
    return folder


if __name__ == "__main__":
    main()
