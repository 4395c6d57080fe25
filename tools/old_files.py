"""Files of every kind that this version writes, small ones, to be kept: later versions must still read them.

Usage: python -m tools.old_files FOLDER [SCORING_MODEL …]. FOLDER is made anew. The scoring models are older ones, prepared
from the same classifier (`--classifier-only` writes that alone): they are copied, and their features noted as well.
"""

import argparse
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from gradscore import Scorer, ScoreTable, Verdict, export_classifier, fuse, open_source, prepare, score_to_parquet

INPUTS = 60
BATCH, SHARD = 10, 20
STOPPED_AFTER = 30  # inputs, of which a shard is finished
BACKENDS = ("native", "reference")


class StopError(Exception):
    """Ends a run in its middle."""


def main() -> None:
    """Write the files, and what they say."""
    parser = argparse.ArgumentParser(prog="python -m tools.old_files")
    parser.add_argument("folder", type=Path)
    parser.add_argument("older", type=Path, nargs="*")
    parser.add_argument("--classifier-only", action="store_true")
    given = parser.parse_args()
    shutil.rmtree(given.folder, ignore_errors=True)
    given.folder.mkdir(parents=True)
    _write_classifier(given.folder / "classifier.onnx")
    if not given.classifier_only:
        _write(given.folder, given.older)


def _write_classifier(path: Path) -> None:
    """Write a stack of convolutions and pools, whose scoring model leaves a backstep to the kernels."""
    torch.manual_seed(0)
    first, second = (nn.Conv2d(*channels, 3, padding=1) for channels in ((1, 2), (2, 3)))
    pooled = (nn.LeakyReLU(0.1), nn.MaxPool2d(2))
    module = nn.Sequential(first, *pooled, second, *pooled, nn.Flatten(), nn.Linear(12, 4))
    export_classifier(module, torch.zeros(2, 1, 8, 8), path, class_names=["north", "east", "south", "west"])
    proto = onnx.load(path)
    for node in proto.graph.node:
        node.ClearField("metadata_props")  # where torch's source code lies
    onnx.save(proto, path)


def _write(folder: Path, older: list[Path]) -> None:
    scoring, images = folder / "scoring.onnx", folder / "images.npy"
    pixels = np.random.default_rng(0).integers(0, 256, (INPUTS, 1, 8, 8), dtype=np.uint8)
    np.save(images, pixels)
    prepare(folder / "classifier.onnx", scoring)
    _run(scoring, images, folder / "scores.parquet")
    _run(scoring, images, folder / "shards")
    with suppress(StopError):
        _run(scoring, images, folder / "half", stop_after=STOPPED_AFTER)
    table = ScoreTable.read(folder / "scores.parquet")
    features, names = table.features(), table.feature_names
    norm = features[:, names.index("all.l2")]
    right = norm + norm.std() * np.random.default_rng(1).standard_normal(INPUTS) < np.median(norm)
    verdict = Verdict.fit(
        features, right, feature_names=names, model_fingerprint=table.model_fingerprint, folds=3
    )  # fmt: skip
    verdict.save(folder / "verdict.onnx")
    fuse(scoring, folder / "self_scoring.onnx", verdict=verdict, features=["*"])
    for path in older:
        shutil.copy(path, folder / path.name)
    expected: dict[str, Any] = {"feature_names": np.array(names), "p_correct": verdict.apply(table)}
    for path in (scoring, *(folder / path.name for path in older)):
        expected |= {f"{path.stem} {backend}": _features(path, pixels, backend) for backend in BACKENDS}
    fused = onnxruntime.InferenceSession(folder / "self_scoring.onnx")
    outputs = [output.name for output in fused.get_outputs()]
    floats = {fused.get_inputs()[0].name: (pixels / np.float32(255)).astype(np.float32)}
    expected |= {
        f"self_scoring {name}": values for name, values in zip(outputs, fused.run(outputs, floats), strict=True)
    }
    np.savez_compressed(folder / "expected.npz", **expected)


def _run(scoring: Path, images: Path, out: Path, *, stop_after: int | None = None) -> None:
    """Score by the back end that every installation has."""
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        if stop_after is not None and done >= stop_after:
            raise StopError

    with Scorer.load(scoring, backend="reference") as scorer:
        score_to_parquet(
            scorer, open_source([images]), out, batch_size=BATCH, shard_rows=SHARD, progress=progress
        )  # fmt: skip


def _features(path: Path, pixels: NDArray[np.uint8], backend: str) -> NDArray[np.float64]:
    with Scorer.load(path, backend=backend) as scorer:
        return scorer.score(pixels).features


if __name__ == "__main__":
    main()
