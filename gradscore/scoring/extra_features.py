"""The table of extra features: published confidence scores, and what layers take in.

Each feature is one small object in `EXTRA_FEATURES`. Its columns stand after those of the head, in the order of that table.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from gradscore.errors import InputError
from gradscore.scoring.activations import Activations, Penultimate, Pooled
from gradscore.scoring.detector_columns import DETECTOR_COLUMNS
from gradscore.scoring.extra_feature import ExtraFeature
from gradscore.scoring.logit_scores import GradNorm, LogitScore, energy, margin, max_logit

EXTRA_FEATURES: Mapping[str, ExtraFeature] = MappingProxyType(
    {
        extra.name: extra
        for extra in (
            LogitScore("max_logit", max_logit),
            LogitScore("energy", energy),
            LogitScore("margin", margin),
            GradNorm(),
            Activations(),
            Pooled(),
            Penultimate(),
        )
    }
)
"""The names for `--features` and `Scorer.load(features=…)`, in the order of their columns."""


def extras_named(names: Sequence[str]) -> tuple[ExtraFeature, ...]:
    """Return the extra features with these names, each once, in the order of the table.

    Raises
    ------
    InputError
        A name is not in the table.
    """
    if unknown := [name for name in names if name not in EXTRA_FEATURES]:
        choices = ", ".join((*EXTRA_FEATURES, *DETECTOR_COLUMNS))
        raise InputError(f"there is no extra feature {unknown[0]!r}: --features takes {choices}")
    return tuple(extra for name, extra in EXTRA_FEATURES.items() if name in names)
