"""What an ONNX file is to gradscore, told by the JSON under `METADATA_KEY` in its properties."""

import json
from enum import StrEnum

METADATA_KEY = "gradscore"


class Kind(StrEnum):
    """The kinds of ONNX files; all but the first two say their own in the JSON."""

    CLASSIFIER = "classifier"
    SCORING = "scoring"
    SELF_SCORING = "self-scoring"
    VERDICT = "verdict"


def kind_of(text: str | None) -> Kind:
    """Return the kind of a file with this text under `METADATA_KEY`; a classifier has none.

    A text that is not JSON is taken for a scoring model's, whose reader says what is wrong with it.
    """
    if text is None:
        return Kind.CLASSIFIER
    try:
        named = json.loads(text).get("kind")
    except (ValueError, AttributeError):
        return Kind.SCORING
    return Kind(named) if named in (Kind.SELF_SCORING, Kind.VERDICT) else Kind.SCORING
