"""Write the table of covered models: family, exporter, engine, layers, covered weights, error against torch.

Usage: python -m tools.coverage. The families are those of the tests' zoo. The error is the largest of
any layer's statistics, compared with torch in float64 on the scale of the tests' oracle. The program writes
tools/results/coverage.md and coverage.json.
"""

import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradscore import GradscoreError, Scorer, prepare
from gradscore.graph.differentiate.engines import ENGINES
from tests.support import oracle, zoo

RESULTS = Path(__file__).parent / "results"
BOTH_EXPORTERS = ("attention", "cnn_1d", "efficientnet", "gru", "lstm", "resnet", "unet", "vit")
NOISE = 1e-6  # a layer with a smaller fraction of the network's gradient norm holds only float32 rounding errors


@dataclass(frozen=True)
class Row:
    """The result for one model, exporter and engine."""

    family: str
    exporter: str
    engine: str
    layers: int = 0
    weights: int = 0
    covered: float = 0.0
    compared: float = 0.0
    error: float | None = None
    refused: str = ""


def main() -> None:
    """Prepare, score and compare every model, and write both tables."""
    warnings.simplefilter("ignore")
    rows = []
    for row in _rows():
        rows.append(row)
        print(f"{row.family} {row.exporter} {row.engine}: {row.refused or f'{row.error:.1e}'}", file=sys.stderr)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "coverage.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    (RESULTS / "coverage.md").write_text("\n".join(_markdown(rows)) + "\n", encoding="utf-8")


def _rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        for family in sorted(zoo.ZOO):
            own = zoo.EXPORTERS.get(family, "dynamo")
            for exporter in (own, "torchscript") if own == "dynamo" and family in BOTH_EXPORTERS else (own,):
                module, example = zoo.build(family)
                yield from _engines(family, exporter, module, example, Path(folder))
        module, example = zoo.perceptron()
        yield from _engines("scikit-learn MLP", "skl2onnx", module, example, Path(folder))


def _engines(family: str, exporter: str, module: Any, example: Any, folder: Path) -> Iterator[Row]:
    classifier = folder / "c.onnx"
    classifier.unlink(missing_ok=True)
    zoo.export(module, example, classifier, exporter)
    for engine in ENGINES:
        try:
            metadata = prepare(classifier, folder / "s.onnx", engine=engine, overwrite=True)
        except GradscoreError as error:
            yield Row(family, exporter, engine, refused=str(error)[:160])
            continue
        covered = sum(item.count for layer in metadata.layers for item in layer.parameters)
        weights = covered + sum(item.count for item in metadata.uncovered)
        with Scorer.load(folder / "s.onnx") as scorer:
            error, compared = _error(family, module, example, scorer)
        yield Row(family, exporter, engine, len(metadata.layers), weights, covered / weights, compared / weights, error)


def _error(family: str, module: Any, example: Any, scorer: Scorer) -> tuple[float, int]:
    """Return the largest error of any statistic, and the number of compared weights."""
    scores, largest = scorer.score(example.numpy()), 0.0
    for row in range(len(example)):
        label, by_name, _ = zoo.gradients(module, example[row])
        if label != scores.label[row]:
            raise AssertionError(f"{family}: predicted {scores.label[row]}, torch says {label}")
        whole = np.concatenate(list(by_name.values()))
        network, compared = oracle.statistics(whole)["l2"], 0
        for layer, chosen in zoo.matched(family, scorer.metadata, by_name):
            if not chosen:
                continue
            compared += sum(by_name[key].size for key in chosen)
            found, expected = zoo.layer_features(scores, row, layer, chosen, by_name)
            if expected[f"{layer.name}.l2"] > NOISE * network:
                largest = max(largest, _distance(found, expected, f"{layer.name}."))
        if compared == 0:  # the converter renamed all layers: compare all weights together
            wanted = {f"all.{key}": value for key, value in oracle.statistics(whole).items()}
            largest = max(largest, _distance({key: float(scores[key][row]) for key in wanted}, wanted, "all."))
            compared = whole.size
    return largest, compared


def _distance(found: dict[str, float], expected: dict[str, float], layer: str) -> float:
    """Return the largest |found − expected|, on the scale of `oracle.assert_features`."""
    floors = dict.fromkeys(("min", "max", "mean"), expected[f"{layer}std"]) | dict.fromkeys(oracle.SHAPES, 1.0)
    return max(
        abs(found[key] - wanted) / (max(abs(wanted), floors.get(key.removeprefix(layer), 0.0)) or 1.0)
        for key, wanted in expected.items()
    )


def _markdown(rows: list[Row]) -> Iterator[str]:
    yield "# What is covered"
    yield ""
    yield "Random weights, small configurations. Written by `PYTHONPATH=tests python -m tools.coverage`. Covered: the fraction of"
    yield "all weights whose gradient is in the statistics. Compared: the fraction in layers that torch has under the same name;"
    yield "an exporter that folds a batch norm or evaluates a table in advance makes other layers. Error: the largest error of"
    yield "any statistic of any such layer against torch in float64, one sample at a time."
    yield ""
    yield "| family | exporter | engine | layers | weights | covered | compared | error |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        named = f"| {row.family} | {row.exporter} | {row.engine} |"
        if row.refused:
            yield f"{named} | | | | refused: {row.refused.replace('|', '/')} |"
        else:
            yield f"{named} {row.layers} | {row.weights:,} | {row.covered:.1%} | {row.compared:.1%} | {row.error:.0e} |"


if __name__ == "__main__":
    main()
