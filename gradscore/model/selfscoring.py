"""The metadata of a self-scoring model: the JSON in its `metadata_props`, as a typed record.

The model has the outputs of the classifier, unchanged and in their order. After them come the outputs that `fuse` adds for
each prediction, those of `MEANINGS`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType

from gradscore.errors import ModelError
from gradscore.model.file_kinds import FileKind
from gradscore.model.json_records import as_fields
from gradscore.model.preprocessing import InputTensor, Preprocessing

FORMAT_VERSION = 1
WHY: Mapping[int, str] = MappingProxyType({0: "accepted", 1: "looks wrong", 2: "looks unknown", -1: "not judged"})
"""Codes of the output `why`. A rejected prediction looks unknown if P(known) < P(right). One with NaN is not judged."""
MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "label": "predicted class",
        "p_correct": "P(the prediction is right)",
        "p_right": "P(the prediction is right, if the input is of a known class)",
        "p_known": "P(the input is of a known class)",
        "accept": "whether P(correct) reaches the threshold",
        "why": ", ".join(f"{code} {text}" for code, text in WHY.items()),
        "entropy": "entropy of the softmax, divided by that of equal shares",
        "max_softmax": "softmax of the predicted class",
        "residual": "1 − max_softmax, computed without cancellation",
        "features": "the features that `feature_names` names",
    }
)
"""What each added output says."""


@dataclass(frozen=True)
class SelfScoringMetadata:
    """Everything that a self-scoring model holds besides its graph.

    Attributes
    ----------
    outputs
        The classifier's own outputs.
    added
        {name in `MEANINGS`: name of the output}. They differ only if the classifier has an output of that name.
    feature_names
        Names of the columns of `features` [B, F].
    used_features
        Names of the features that the verdict reads.
    threshold
        The model accepts predictions whose P(correct) is at or above it.
    verdict
        Method and SHA-256 of the verdict.
    scoring_sha256
        SHA-256 of the scoring model that was fused.
    """

    source_sha256: str
    scoring_sha256: str
    inputs: tuple[InputTensor, ...]
    classes: int
    outputs: tuple[str, ...]
    added: Mapping[str, str]
    class_names: tuple[str, ...] | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    feature_names: tuple[str, ...] = ()
    used_features: tuple[str, ...] = ()
    threshold: float | None = None
    verdict: Mapping[str, str] | None = None
    gradscore_version: str = ""
    format_version: int = FORMAT_VERSION
    kind: str = FileKind.SELF_SCORING.value

    def to_json(self) -> str:
        """Serialise to the text stored under `METADATA_KEY`."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, *, where: str) -> "SelfScoringMetadata":
        """Parse the text of `to_json`; `where` names the file in errors.

        Raises
        ------
        ModelError
            The text is damaged or of another format.
        """
        try:
            raw = json.loads(text)
            if raw["format_version"] != FORMAT_VERSION:
                raise ModelError(
                    f"{where} has self-scoring format {raw['format_version']}, this gradscore reads {FORMAT_VERSION}: "
                    "run `gradscore fuse` again"
                )
            raw["inputs"] = tuple(InputTensor(**as_fields(tensor)) for tensor in raw["inputs"])
            raw["preprocessing"] = Preprocessing(**as_fields(raw["preprocessing"]))
            return cls(**as_fields(raw))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{where} has damaged gradscore metadata ({error}): fuse it again") from error
