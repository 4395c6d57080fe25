"""The study: repetitions of everything, each step cached, and what they come to on average."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

from gradscore import ScoreTable
from gradscore.cases import Cases
from gradscore.writing import replacing
from tools.paper import scores, training
from tools.paper.concepts import Concepts
from tools.paper.measures import METRICS, Fitting, Measures, fitting, measured, tested
from tools.paper.rows import MAX_SOFTMAX, SYNTHETIC, VALIDATION, Row, rows_of
from tools.paper.scores import Tables
from tools.paper.splits import Repetition
from tools.paper.training import Training

VERSION = 1  # of what a cached result means


@dataclass(frozen=True)
class Result:
    """One confidence, measured.

    Attributes
    ----------
    table, row, fitted_on : where it stands, see `rows.Row`
    seed : of the repetition
    network : which of several fits
    measures : metrics in percent by concept
    held_out : gains over maximum softmax on rows held out of a fit with known unknowns; None for other rows
    """

    table: int
    row: str
    fitted_on: str
    seed: int
    network: int
    measures: Measures
    held_out: Measures | None


def run(concepts: Concepts, *, cnns: int, networks: int, how: Training, cache: Path, jobs: int) -> list[Result]:
    """Return the results of all repetitions, several at a time in processes of their own."""
    one = partial(repeat, concepts, networks=networks, how=how, cache=cache)
    if jobs == 1:
        return [result for seed in range(cnns) for result in one(seed)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as workers:
        return [result for results in workers.map(one, range(cnns)) for result in results]


def repeat(concepts: Concepts, seed: int, *, networks: int, how: Training, cache: Path) -> list[Result]:
    """Train or load one CNN, score, fit and measure."""
    torch.set_num_threads(1)
    repetition = Repetition.draw(concepts, seed)
    model, folder = training.trained(repetition, how, cache)
    tables = scores.scored(repetition, model, folder)
    test = tested(tables)
    sets = fitting_sets(concepts.known_unknowns, tables)
    rows = rows_of(test.table.feature_names, tuple(sets))
    return [
        one for row in rows for one in _results(row, tables, sets.get(row.fitted_on, {}), test, networks, seed, folder)
    ]


def fitting_sets(known_unknowns: Sequence[str], tables: Tables) -> dict[str, Mapping[str, ScoreTable]]:
    """Return what is fitted on beside the validation rows, by name: nothing, more and more known unknowns, synthetic ones."""
    sets: dict[str, Mapping[str, ScoreTable]] = {VALIDATION: {}}
    for index, name in enumerate(known_unknowns):
        sets[f"+ {name}"] = {one: tables.known_unknowns[one] for one in known_unknowns[: index + 1]}
    return {**sets, SYNTHETIC: tables.synthetic}


def _results(
    row: Row,
    tables: Tables,
    known_unknowns: Mapping[str, ScoreTable],
    test: Cases,
    networks: int,
    seed: int,
    folder: Path,
) -> list[Result]:
    path = folder / f"row-{_key(row, networks, tables)}.json"
    if not path.exists():
        given = fitting(tables, known_unknowns, test)
        found = {
            "measures": [measured(one, test) for one in row.recipe.confidences(given, test.features, networks, seed)],
            "held_out": _held_out(row, given, seed) if known_unknowns else None,
        }
        with replacing(path, overwrite=True) as part:
            part.write_text(json.dumps(found), encoding="utf-8")
    found = json.loads(path.read_text(encoding="utf-8"))
    return [
        Result(row.table, row.name, row.fitted_on, seed, network, measures, found["held_out"])
        for network, measures in enumerate(found["measures"])
    ]


def _held_out(row: Row, given: Fitting, seed: int) -> Measures:
    """Return the gains over maximum softmax of a single fit to a part of the rows, on the rest of them."""
    fitted, rest = given.held_out(seed)
    ours = measured(row.recipe.confidences(fitted, rest.features, 1, seed)[0], rest)
    softmax = measured(MAX_SOFTMAX.confidences(fitted, rest.features, 1, seed)[0], rest)
    return {name: {key: ours[name][key] - softmax[name][key] for key in METRICS} for name in ours}


def _key(row: Row, networks: int, tables: Tables) -> str:
    parts = (VERSION, row.recipe, row.fitted_on, networks, tables.digest)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
