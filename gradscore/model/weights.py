"""The check of the file of weights beside a scoring model."""

from pathlib import Path

from gradscore.errors import ModelError
from gradscore.files.digest import sha256_of_file
from gradscore.model.metadata import ModelMetadata


def require_weights(model: Path, metadata: ModelMetadata) -> None:
    """Refuse a model if the weights beside it are missing or differ from those that it was prepared with.

    So the model's fingerprint covers these weights too.

    Raises
    ------
    ModelError
        The file is not in the model's folder, or its content has changed.
    """
    if not metadata.weights_file:
        return
    file = model.parent / metadata.weights_file
    if file.name != metadata.weights_file or not file.is_file():
        raise ModelError(
            f"{model}: its weights are missing: keep {metadata.weights_file!r} beside it, or prepare it again"
        )
    if sha256_of_file(file) != metadata.weights_sha256:
        raise ModelError(f"{file} does not hold the weights that {model.name} was prepared with: prepare it again")
