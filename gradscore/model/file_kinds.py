"""What an ONNX file is to gradscore, told by the JSON under `METADATA_KEY` in its properties."""

import json
from enum import StrEnum

METADATA_KEY = "gradscore"


class FileKind(StrEnum):
    """The kinds of ONNX files; all but the first two say their own in the JSON."""

    CLASSIFIER = "classifier"
    SCORING = "scoring"
    SELF_SCORING = "self-scoring"
    VERDICT = "verdict"


def kind_of(text: str | None) -> FileKind:
    """Return the kind of a file with this text under `METADATA_KEY`; a classifier has none.

    A text that is not JSON is taken for a scoring model's, whose reader says what is wrong with it.
    """
    if text is None:
        return FileKind.CLASSIFIER
    try:
        named = json.loads(text).get("kind")
    except (ValueError, AttributeError):
        return FileKind.SCORING
    return FileKind(named) if named in (FileKind.SELF_SCORING, FileKind.VERDICT) else FileKind.SCORING
