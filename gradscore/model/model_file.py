"""Read and check the metadata of a model file, without a session and without its graph."""

import os
from pathlib import Path

from gradscore.errors import ModelError
from gradscore.model.file_kinds import METADATA_KEY, FileKind, kind_of
from gradscore.model.metadata import ModelMetadata
from gradscore.model.properties import read_properties
from gradscore.model.selfscoring import SelfScoringMetadata


def identify(path: str | os.PathLike[str]) -> FileKind:
    """Return the kind of an ONNX file.

    Raises
    ------
    ModelError
        The file is missing, or it is not an ONNX model.
    """
    return kind_of(_text(Path(path)))


def read_metadata(path: str | os.PathLike[str]) -> ModelMetadata:
    """Read a scoring model's metadata from its file.

    Raises
    ------
    ModelError
        The file is missing, is not a scoring model, or its metadata are damaged or of another format.
    """
    file = Path(path)
    return ModelMetadata.from_json(_text_of_gradscore(file), where=str(file))


def read_self_scoring(path: str | os.PathLike[str]) -> SelfScoringMetadata:
    """Read a self-scoring model's metadata from its file.

    Raises
    ------
    ModelError
        The file is missing, is not a self-scoring model, or its metadata are damaged or of another format.
    """
    file = Path(path)
    return SelfScoringMetadata.from_json(_text_of_gradscore(file), where=str(file))


def _text_of_gradscore(file: Path) -> str:
    text = _text(file)
    if text is None:
        raise ModelError(
            f"{file} is an ONNX model but not a scoring model: run `gradscore prepare {file} -o scoring.onnx`"
        )
    return text


def _text(file: Path) -> str | None:
    if not file.is_file():
        raise ModelError(f"{file}: no such file; `gradscore prepare CLASSIFIER -o {file}` writes a scoring model")
    return read_properties(file).get(METADATA_KEY)
