"""The kinds of ONNX files, by the JSON under `METADATA_KEY` in their properties."""

import json
from enum import StrEnum

METADATA_KEY = "gradscore"


class FileKind(StrEnum):
    """The kinds of ONNX files. Self-scoring models and verdicts have their kind in the JSON."""

    CLASSIFIER = "classifier"
    SCORING = "scoring"
    SELF_SCORING = "self-scoring"
    VERDICT = "verdict"


def kind_of(text: str | None) -> FileKind:
    """Return the kind of a file from its text under `METADATA_KEY`. A classifier has no such text.

    Text that is not JSON counts as a scoring model. The reader of scoring models then raises the error.
    """
    if text is None:
        return FileKind.CLASSIFIER
    try:
        named = json.loads(text).get("kind")
    except (ValueError, AttributeError):
        return FileKind.SCORING
    return FileKind(named) if named in (FileKind.SELF_SCORING, FileKind.VERDICT) else FileKind.SCORING
