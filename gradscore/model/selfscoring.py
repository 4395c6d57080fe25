"""What a self-scoring model says about itself: the JSON in its `metadata_props`, as a typed record.

Its outputs are the classifier's own, unchanged and in their order, and after them what the model knows of each prediction:
`label`, `p_correct`, `accept`, `entropy`, `max_softmax`, `residual`, and on request `features`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from gradscore.errors import ModelError
from gradscore.model.file_kinds import FileKind
from gradscore.model.json_records import as_fields
from gradscore.model.preprocessing import InputTensor, Preprocessing

FORMAT_VERSION = 1
OUTPUTS = ("label", "p_correct", "accept", "entropy", "max_softmax", "residual", "features")


@dataclass(frozen=True)
class SelfScoringMetadata:
    """Everything that a self-scoring model carries beside its graph.

    Attributes
    ----------
    outputs
        The classifier's own outputs.
    added
        What was added, by its name in `OUTPUTS`, and as which output: another name only where the classifier had that one.
    feature_names
        What the columns of `features` [B, F] are.
    used_features
        What P(correct) is read from.
    threshold
        Predictions with P(correct) at or above it are accepted.
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
        """Parse what `to_json` wrote; `where` names the file in errors."""
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
