"""Scored rows of one repetition: export, prepare and score as a user would, and one file with everything.

The file is an .npz without pickles, see `tools.decisions.measured`, which reads it.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gradscore import ModelError, Scorer, __version__, export_classifier, prepare
from gradscore.files.writing import replacing
from gradscore.scoring.extra_features import EXTRA_FEATURES
from gradscore.unknowns.synthesis import kinds_for, make_unknowns
from tools.decisions.material import Family, Material, Rows
from tools.decisions.pictures import Pictures
from tools.decisions.task import Task
from tools.decisions.training import Trained, as_tensor, trained

MADE = 100  # synthetic unknowns of each kind
MADE_FROM = 1000  # rows of the fit that they are made from


@dataclass(frozen=True)
class Part:
    """Rows of one group on one side of the split, to be scored."""

    group: str
    family: Family
    split: str
    rows: Rows


def scored(name: str, task: Task, sources: Pictures, seed: int, cache: Path) -> Path:
    """Return the file with the scored rows of a repetition; train, score and write it if it is not there."""
    path = cache / f"{name}-{seed}.npz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        material = task.draw(sources, seed)
        classifier = trained(lambda: task.model(material), material.training, task.training, seed, cache)
        with _scorer(task, material, classifier, cache) as scorer:
            columns = _columns(scorer, _parts(material, scorer, seed))
        about = {
            "task": name,
            "title": task.title,
            "seed": seed,
            "class_names": material.class_names,
            "training_seconds": classifier.seconds,
            "gradscore": __version__,
            "torch": torch.__version__,
            "scoring_model": _scoring_path(classifier, cache).name,
        }
        head = _head(classifier.model)
        with replacing(path, overwrite=True) as part, part.open("wb") as file:
            np.savez(file, about=np.array(json.dumps({**about, **columns.pop("about")})), **columns, **head)
    return path


def _scoring_path(classifier: Trained, cache: Path) -> Path:
    return cache / f"scoring-{classifier.key}-{__version__}.onnx"


def _scorer(task: Task, material: Material, classifier: Trained, cache: Path) -> Scorer:
    path = _scoring_path(classifier, cache)
    if not path.exists():
        source, example = cache / f"classifier-{classifier.key}.onnx", as_tensor(material.test.inputs[:2])
        export_classifier(
            classifier.model,
            example,
            source,
            class_names=material.class_names,
            preprocessing=task.preprocessing,
            overwrite=True,
        )
        prepare(source, path)
    return Scorer.load(path, threads=1, features=_possible(path))


def _possible(path: Path) -> list[str]:
    """Return the extra features that this scoring model can have."""
    possible = []
    for name in EXTRA_FEATURES:
        try:
            Scorer.load(path, features=[name]).close()
        except ModelError as error:
            print(f"  without {name}: {error}")
        else:
            possible.append(name)
    return possible


def _parts(material: Material, scorer: Scorer, seed: int) -> list[Part]:
    """Return everything to score: known rows, synthetic unknowns for the fit, and all groups of the test."""
    parts = [Part("known", "known", "fit", material.fit), Part("known", "known", "test", material.test)]
    for kind in kinds_for(scorer.metadata):
        made = make_unknowns(scorer, kind, MADE, known=material.fit.inputs[:MADE_FROM], seed=seed)
        parts.append(Part(f"made by {kind}", "made", "fit", Rows.unknown(made)))
    return parts + [Part(name, one.family, "test", one.rows) for name, one in material.others.items()]


def _columns(scorer: Scorer, parts: list[Part]) -> dict[str, Any]:
    """Score the parts and return the arrays of the file."""
    start = time.perf_counter()
    scores = [scorer.score(part.rows.inputs) for part in parts]
    seconds = time.perf_counter() - start
    names = list(dict.fromkeys(part.group for part in parts))
    families = {part.group: part.family for part in parts}

    def repeated(values: list[Any]) -> NDArray[Any]:
        return np.repeat(np.array(values), [len(part.rows) for part in parts])

    right = [float((one.label == part.rows.classes).mean()) for one, part in zip(scores, parts, strict=True)]
    rows = sum(len(part.rows) for part in parts)
    return {
        "features": np.concatenate([one.features for one in scores]),
        "feature_names": np.array(scores[0].feature_names),
        "label": np.concatenate([one.label for one in scores]).astype(np.int64),
        "truth": np.concatenate([part.rows.classes for part in parts]),
        "group": repeated([names.index(part.group) for part in parts]),
        "group_names": np.array(names),
        "families": np.array([families[name] for name in names]),
        "split": repeated([part.split for part in parts]),
        "about": {
            "accuracy": dict(zip(("fit", "test"), right[:2], strict=True)),
            "accuracy_corrupted": {p.group: a for p, a in zip(parts, right, strict=True) if p.family == "corruption"},
            "scoring_seconds": seconds,
            "scored_rows": rows,
        },
    }


def _head(model: nn.Module) -> dict[str, NDArray[Any]]:
    """Return weight [q, D] and bias [q] of the dense layer that makes the logits: the last one."""
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    return {"head_weight": last.weight.detach().numpy(), "head_bias": last.bias.detach().numpy()}
