"""The study: independent repetitions of all steps, each step cached."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from gradscore import ScoreTable
from gradscore.comparing.cases import Cases
from gradscore.files.writing import replacing
from tools.paper import scores, training
from tools.paper.concepts import Concepts
from tools.paper.measures import METRICS, Fitting, Measures, fitting, measured, tested
from tools.paper.rows import MAX_SOFTMAX, SYNTHETIC, VALIDATION, Row, rows_of
from tools.paper.scores import Tables
from tools.paper.splits import Repetition
from tools.paper.training import Training

VERSION = 1  # version of the cached results


@dataclass(frozen=True)
class Result:
    """The measures of one confidence.

    Attributes
    ----------
    table, row, fitted_on
        The row of the tables, see `rows.Row`.
    seed : int
        Seed of the repetition.
    network : int
        Index of the fit, for rows with several networks.
    measures : dict
        Metrics in percent by concept.
    held_out : dict or None
        Gains over maximum softmax on held-out rows, for fits with all known unknowns. None for other rows.
    seconds : float
        Seconds that all networks of the row took to fit and measure.
    """

    table: int
    row: str
    fitted_on: str
    seed: int
    network: int
    measures: Measures
    held_out: Measures | None
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """The results of one repetition."""

    seed: int
    accuracy: float
    training_seconds: float
    scoring_seconds: float
    results: list[Result]


def run(concepts: Concepts, *, cnns: int, networks: int, how: Training, cache: Path, jobs: int) -> list[Outcome]:
    """Return the outcomes of all repetitions.

    Up to `jobs` of them run at a time, in separate processes.
    """
    one = partial(repeat, concepts, networks=networks, how=how, cache=cache)
    if jobs == 1:
        return [one(seed) for seed in range(cnns)]
    with ProcessPoolExecutor(min(jobs, cnns), mp_context=get_context("spawn")) as workers:
        return list(workers.map(one, range(cnns)))


def repeat(concepts: Concepts, seed: int, *, networks: int, how: Training, cache: Path) -> Outcome:
    """Train or load one CNN, then score, fit and measure, all on one thread."""
    torch.set_num_threads(1)
    repetition = Repetition.draw(concepts, seed)
    cnn = training.trained(repetition, how, cache)
    tables = scores.scored(repetition, cnn.model, cnn.folder)
    test = tested(tables)
    sets = fitting_sets(concepts.known_unknowns, tables)
    given = {name: fitting(tables, known_unknowns, test) for name, known_unknowns in sets.items()}
    bench = Bench(tables.digest, test, given, every_known_unknown(concepts), networks, seed, cnn.folder)
    found = [result for row in rows_of(test.table.feature_names, tuple(sets)) for result in bench.results(row)]
    accuracy = float(test.correct[test.group == 0].mean())
    return Outcome(seed, accuracy, cnn.seconds, tables.seconds, found)


def every_known_unknown(concepts: Concepts) -> str:
    """Return the name of the set with all known unknowns."""
    return f"+ {concepts.known_unknowns[-1]}"


def fitting_sets(known_unknowns: Sequence[str], tables: Tables) -> dict[str, Mapping[str, ScoreTable]]:
    """Return the fitting rows beside the validation rows, by name.

    The sets are: none, more and more known unknowns, and synthetic unknowns.
    """
    sets: dict[str, Mapping[str, ScoreTable]] = {VALIDATION: {}}
    for index, name in enumerate(known_unknowns):
        sets[f"+ {name}"] = {one: tables.known_unknowns[one] for one in known_unknowns[: index + 1]}
    return {**sets, SYNTHETIC: tables.synthetic}


@dataclass(frozen=True)
class Bench:
    """Everything needed to measure the rows of one repetition.

    `every` names the set with all known unknowns.
    """

    digest: str
    test: Cases
    given: Mapping[str, Fitting]
    every: str
    networks: int
    seed: int
    folder: Path

    def results(self, row: Row) -> list[Result]:
        """Return the results of a row, from the cache if they are there."""
        path = self.folder / f"row-{self._key(row)}.json"
        if not path.exists():
            found = self._measured(row)
            with replacing(path, overwrite=True) as part:
                part.write_text(json.dumps(found), encoding="utf-8")
        found = json.loads(path.read_text(encoding="utf-8"))
        return [
            Result(
                row.table, row.name, row.fitted_on, self.seed, network, measures, found["held_out"], found["seconds"]
            )
            for network, measures in enumerate(found["measures"])
        ]

    def _measured(self, row: Row) -> dict[str, Any]:
        start = time.perf_counter()
        given = self.given[row.fitted_on or VALIDATION]
        confidences = row.recipe.confidences(given, self.test.features, self.networks, self.seed)
        measures = [measured(one, self.test) for one in confidences]
        held_out = _held_out(row, given, self.seed) if row.fitted_on == self.every else None
        return {"measures": measures, "held_out": held_out, "seconds": time.perf_counter() - start}

    def _key(self, row: Row) -> str:
        parts = (VERSION, row.recipe, row.fitted_on, self.networks, self.digest)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _held_out(row: Row, given: Fitting, seed: int) -> Measures:
    """Return the gains over maximum softmax on rows held out of one fit."""
    fitted, rest = given.held_out(seed)
    ours = measured(row.recipe.confidences(fitted, rest.features, 1, seed)[0], rest)
    softmax = measured(MAX_SOFTMAX.confidences(fitted, rest.features, 1, seed)[0], rest)
    return {name: {key: ours[name][key] - softmax[name][key] for key in METRICS} for name in ours}
