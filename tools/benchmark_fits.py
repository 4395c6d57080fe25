"""How long `fit` takes for each method, on drawn features shaped like those of gradients, and how good the verdicts are.

Usage: python -m tools.benchmark_fits [--method NAME …] [--rows N] [--features N] [-o FILE]. Writes tools/results/fits.md or
another file. A time is that of one whole `Verdict.fit`: cross-validation over the path of penalties,
final fit and threshold. The methods run one after the other in one process. On a busy machine the CPU time says more than
the clock. Folds run side by side, so that on idle cores the clock shows less than the CPU time.

The features are eight statistics for each layer. All follow the same twenty latent factors, over many decades and with
heavy tails. Norms and deviation of a layer are nearly copies of one another, as those of a gradient are. About 85 % of
the rows are right.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from gradscore_kernels import usable_cores
from numpy.typing import NDArray
from sklearn.metrics import log_loss

from gradscore import Verdict
from gradscore.metrics.ranking import Ranking, auroc
from gradscore.verdict import METHODS

FloatArray = NDArray[np.float64]

RESULTS = Path(__file__).parent / "results" / "fits.md"
ROWS, FEATURES, HELD_OUT = 10_000, 600, 5_000
FACTORS = 20
OWN_SHARE = np.array([0.05, 0.05, 0.2, 0.2, 0.5, 0.05, 0.5, 0.5])  # of l1, l2, min, max, mean, std, skewness, kurtosis
SIGNED = (6, 7)


@dataclass(frozen=True)
class Cases:
    """Features [N, F] and whether each row is right [N]."""

    features: FloatArray
    right: NDArray[np.bool_]


def draw(rows: int, features: int, seed: int = 0) -> Cases:
    """Draw features of `features` / 8 layers."""
    rng = np.random.default_rng(seed)
    layers = features // len(OWN_SHARE)
    hidden, share = rng.normal(size=(rows, FACTORS)), np.tile(OWN_SHARE, layers)
    shared = rng.normal(size=(layers, FACTORS)) * (rng.random((layers, FACTORS)) < 0.4)
    loads = np.repeat(shared, len(OWN_SHARE), axis=0) + share[:, None] * rng.normal(size=(len(share), FACTORS))
    logs = hidden @ loads.T + 0.6 * share * rng.standard_t(4, size=(rows, len(share)))
    logs *= rng.uniform(0.5, 3, len(share))
    found = np.exp(logs + rng.uniform(-30, 5, len(share)))
    both = np.isin(np.arange(len(share)) % len(OWN_SHARE), SIGNED)
    found[:, both] *= np.sign(rng.normal(size=(rows, both.sum())) + logs[:, both] / 3)
    margin = hidden @ (rng.normal(size=FACTORS) * np.exp(-np.arange(FACTORS) / 6))
    margin = 2.2 + 1.4 * margin / margin.std() + 0.5 * hidden[:, 0] * hidden[:, 1]
    return Cases(found, rng.random(rows) < 1 / (1 + np.exp(-margin)))


def _row(method: str, train: Cases, test: Cases) -> str:
    """Fit a verdict and measure it on the rows held out."""
    names = [f"layer{index // 8}.s{index % 8}" for index in range(train.features.shape[1])]
    wall, cpu = time.perf_counter(), time.process_time()
    verdict = Verdict.fit(train.features, train.right, feature_names=names, model_fingerprint="drawn", method=method)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    p, (rows, columns) = verdict.apply(test.features), train.features.shape
    ranked = f"{100 * auroc(Ranking.of(p, test.right)):.1f}"
    penalty = f"{verdict.summary['penalty']:.1e}" if METHODS[method].penalties else ""
    loss = f"{log_loss(test.right, p):.4f}"
    return f"| {method} | {rows:,} × {columns} | {wall:.1f} | {cpu:.1f} | {penalty} | {loss} | {ranked} |"


def main(
    method: Annotated[list[str] | None, typer.Option(help="These methods alone.")] = None,
    rows: int = ROWS,
    features: int = FEATURES,
    output: Annotated[Path, typer.Option("--output", "-o")] = RESULTS,
) -> None:
    """Measure, print and write the table."""
    both = draw(rows + HELD_OUT, features)
    train = Cases(both.features[:rows], both.right[:rows])
    test = Cases(both.features[rows:], both.right[rows:])
    _row("lasso", draw(300, 16), draw(100, 16, seed=1))  # loads what a first fit loads
    before, found = os.getloadavg()[0], []
    for name in method or METHODS:
        found.append(_row(name, train, test))
        typer.echo(found[-1], err=True)
    text = "\n".join([
        "# Fits",
        "",
        f"`python -m tools.benchmark_fits`: drawn features, {train.right.mean():.0%} of the rows right, one whole `fit` a method "
        f"on {usable_cores()} cores; log loss and AUROC of {HELD_OUT:,} other rows. The best log loss that a constant reaches is "
        f"{log_loss(test.right, np.full(HELD_OUT, test.right.mean())):.4f}.",
        f"Other work on the machine: mean length of its run queue {before:.1f} before and {os.getloadavg()[0]:.1f} at the end.",
        "",
        "| method | rows × features | seconds | seconds of CPU | penalty | log loss | AUROC |",
        "|---|---|---:|---:|---:|---:|---:|",
        *found,
        "",
    ])  # fmt: skip
    typer.echo(text)
    output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
