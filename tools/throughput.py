"""How near the pipeline comes to its slowest stage: rates of reading alone, scoring alone, and the whole way to a table.

Usage: python -m tools.throughput SCORING_MODEL OUTPUT_FOLDER [IDX_IMAGES | IMAGE_FOLDER]. An idx file, such as MNIST's
train-images-idx3-ubyte.gz, is first written out as one PNG an image. The last line is one JSON object.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from gradscore import Scorer, open_source
from gradscore.batch import BATCH_SIZE, score_to_parquet
from gradscore.inputs.arrays import open_idx
from gradscore.sources import ArrayRow, Source

ROUNDS = 3


def main() -> None:
    """Measure and print."""
    model, out, images = map(Path, sys.argv[1:4])
    out.mkdir(parents=True, exist_ok=True)
    folder = images if images.is_dir() else _as_pngs(images, out / "png")
    with Scorer.load(model) as scorer:
        source = open_source([folder])
        batch = np.stack([entry.read(scorer.metadata) for entry in source.entries[:BATCH_SIZE]])
        stages: dict[str, Callable[[], object]] = {
            "decode": lambda: _decode(scorer, source),
            "score": lambda: [scorer.score(batch) for _ in range(0, len(source), BATCH_SIZE)],
            "pipeline": lambda: score_to_parquet(scorer, source, out / "scores.parquet", overwrite=True),
        }
        found = [{name: _measured(stage, len(source)) for name, stage in stages.items()} for _ in range(ROUNDS)]
    for one in found:
        sys.stdout.write(
            ", ".join(f"{name} {rate:,.0f}/s, {cpu:.0f} µs CPU" for name, (rate, cpu) in one.items()) + "\n"
        )
    ratios = [one["pipeline"][0] / min(one["decode"][0], one["score"][0]) for one in found]
    added = [one["pipeline"][1] / (one["decode"][1] + one["score"][1]) for one in found]
    report = {
        "inputs": len(source), "ratio": float(np.median(ratios)), "cpu_over_sum_of_stages": float(np.median(added)),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip
    sys.stdout.write(json.dumps(report) + "\n")


def _decode(scorer: Scorer, source: Source) -> None:
    for _ in scorer.read_ahead(source):
        pass


def _measured(stage: Callable[[], object], count: int) -> tuple[float, float]:
    """Return inputs a second, and microseconds of processor time an input."""
    wall, cpu = time.perf_counter(), time.process_time()
    stage()
    return count / (time.perf_counter() - wall), (time.process_time() - cpu) / count * 1e6


def _as_pngs(images: Path, folder: Path) -> Path:
    for index, entry in enumerate(open_idx(images)):
        assert isinstance(entry, ArrayRow)  # noqa: S101 - idx files hold nothing else
        path = folder / entry.id.partition("/")[0] / f"{index:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(entry.rows[index])).save(path)
    return folder


if __name__ == "__main__":
    main()
