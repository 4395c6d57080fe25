"""The table of extra features: published confidence scores, and what layers take in.

Each feature is one small object in `EXTRA_FEATURES`. Its columns stand after those of the head, in the order of that table.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from gradscore.errors import InputError, ModelError
from gradscore.model.metadata import ModelMetadata
from gradscore.scoring.activations import Activations, Penultimate, Pooled
from gradscore.scoring.detector_columns import DETECTOR_COLUMNS
from gradscore.scoring.extra_feature import ExtraFeature
from gradscore.scoring.logit_scores import LOGIT_SCORES, GradNorm, Logits

EXTRA_FEATURES: Mapping[str, ExtraFeature] = MappingProxyType(
    {
        extra.name: extra
        for extra in (
            *LOGIT_SCORES,
            GradNorm(),
            Activations(),
            Pooled(),
            Penultimate(),
            Logits(),
        )
    }
)
"""The names for `--features` and `Scorer.load(features=…)`, in the order of their columns."""


RECOMMENDED = "recommended"
"""A name for all of `RECOMMENDED_FEATURES` that a model can have."""
RECOMMENDED_FEATURES = ("max_logit", "energy", "margin", "activations", "pooled")
"""What the verdict `two-heads` reads besides the gradient: scores of the logits, and the inputs of layers."""


def possible_names(names: Sequence[str], model: ModelMetadata) -> tuple[str, ...]:
    """Return the names with "recommended" replaced by those that this model can have."""
    wanted = [extra for extra in RECOMMENDED_FEATURES if RECOMMENDED in names and _columns_of(extra, model)]
    return (*(name for name in names if name != RECOMMENDED), *wanted)


def extras_named(names: Sequence[str]) -> tuple[ExtraFeature, ...]:
    """Return the extra features with these names, each once, in the order of the table.

    Raises
    ------
    InputError
        A name is not in the table.
    """
    if unknown := [name for name in names if name not in EXTRA_FEATURES]:
        choices = ", ".join((RECOMMENDED, *EXTRA_FEATURES, *DETECTOR_COLUMNS))
        raise InputError(f"there is no extra feature {unknown[0]!r}: --features takes {choices}")
    return tuple(extra for name, extra in EXTRA_FEATURES.items() if name in names)


def features_with(columns: Sequence[str], model: ModelMetadata) -> tuple[str, ...]:
    """Return the names of the extra features that have any of these columns."""
    return tuple(name for name in EXTRA_FEATURES if not set(columns).isdisjoint(_columns_of(name, model)))


def _columns_of(name: str, model: ModelMetadata) -> tuple[str, ...]:
    """Return the columns of an extra feature, or none if this model cannot have it."""
    try:
        return EXTRA_FEATURES[name].columns(model)
    except ModelError:
        return ()
