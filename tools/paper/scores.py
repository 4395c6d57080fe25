"""Score tables of a trained CNN, by gradscore's own calls: export, prepare and score.

Each table is cached.
"""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from gradscore import Scorer, ScoreTable, __version__, export_classifier, prepare
from gradscore.files.writing import replacing
from gradscore.runs.scoring_run import table_metadata
from gradscore.tables import table as features
from gradscore.unknowns.synthesis import kinds_for, score_unknowns
from tools.paper.concepts import SIDE
from tools.paper.splits import Part, Repetition

CLASS_NAMES = tuple("0123456789")
EXTRAS = ("max_logit", "energy", "margin", "gradnorm", "activations")
SYNTHETIC_FROM = 1000  # validation pictures from which synthetic unknowns are made


@dataclass(frozen=True)
class Tables:
    """The score tables of one repetition.

    Attributes
    ----------
    validation, test : ScoreTable
        Pictures of the known concept, for fitting and for testing.
    unknown, known_unknowns : mapping of str to ScoreTable
        Pictures of each unknown concept, for testing and others for fitting.
    synthetic : mapping of str to ScoreTable
        Unknowns of each synthetic kind, made from validation pictures and noise.
    digest : str
        Digest of everything that the scores depend on.
    """

    validation: ScoreTable
    test: ScoreTable
    unknown: Mapping[str, ScoreTable]
    known_unknowns: Mapping[str, ScoreTable]
    synthetic: Mapping[str, ScoreTable]
    digest: str

    @property
    def seconds(self) -> float:
        """Seconds that scoring took on one thread."""
        scored = (self.validation, self.test, *self.unknown.values(), *self.known_unknowns.values())
        return sum(float(table.metadata["scoring_seconds"]) for table in scored)


def scored(repetition: Repetition, model: nn.Module, folder: Path) -> Tables:
    """Return the score tables of a repetition, from the cache folder if they are there."""
    with Scorer.load(_scoring_model(model, folder), threads=1, features=EXTRAS) as scorer:
        unknown = [*repetition.unknown.values(), *repetition.known_unknowns.values()]
        return Tables(
            validation=_table(scorer, repetition.fitted, folder),
            test=_table(scorer, repetition.test, folder),
            unknown={name: _table(scorer, part, folder) for name, part in repetition.unknown.items()},
            known_unknowns={name: _table(scorer, part, folder) for name, part in repetition.known_unknowns.items()},
            synthetic={kind: _synthetic(scorer, kind, repetition, folder) for kind in kinds_for(scorer.metadata)},
            digest=_key(scorer, "".join(part.digest for part in (repetition.fitted, repetition.test, *unknown))),
        )


def _scoring_model(model: nn.Module, folder: Path) -> Path:
    classifier, scoring = folder / "classifier.onnx", folder / f"scoring-{__version__}.onnx"
    if not scoring.exists():
        example = torch.zeros(1, 1, SIDE, SIDE)
        export_classifier(model, example, classifier, class_names=CLASS_NAMES, overwrite=True)
        prepare(classifier, scoring)
    return scoring


def _table(scorer: Scorer, part: Part, folder: Path) -> ScoreTable:
    path = folder / f"scores-{_key(scorer, part.digest)}.parquet"
    if not path.exists():
        start = time.perf_counter()
        scores = scorer.score(part.images)
        seconds = {"scoring_seconds": time.perf_counter() - start}
        schema = features.schema(scorer.feature_names, {**table_metadata(scorer), **seconds})
        batch = features.to_batch(schema, ids=part.ids, labels=scores.label, features=scores.features)
        _write(ScoreTable.of(pa.Table.from_batches([batch])), path)
    return ScoreTable.read(path)


def _synthetic(scorer: Scorer, kind: str, repetition: Repetition, folder: Path) -> ScoreTable:
    known = repetition.fitted.first(SYNTHETIC_FROM)
    count = min(len(part.ids) for part in repetition.known_unknowns.values())
    path = folder / f"scores-{_key(scorer, f'{kind} {count} {repetition.seed} {known.digest}')}.parquet"
    if not path.exists():
        _write(score_unknowns(scorer, kind, count, known=known.images, seed=repetition.seed), path)
    return ScoreTable.read(path)


def _write(table: ScoreTable, path: Path) -> None:
    with replacing(path, overwrite=True) as part:
        pq.write_table(table.table, part)


def _key(scorer: Scorer, inputs: str) -> str:
    parts = (scorer.fingerprint, *scorer.feature_names, scorer.backend, inputs)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
