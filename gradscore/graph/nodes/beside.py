"""A model's weights in a file beside it, called after their own content: no model ever meets another model's weights."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from gradscore.files.writing import replacing
from gradscore.graph.nodes.storing import fits_one_file, sha256_of_weights, write_weights

_DIGITS = 16


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights: its name beside the model, and the SHA-256 of its content."""

    name: str
    sha256: str


@contextmanager
def weights_beside(model: ir.Model, target: Path, *, wanted: bool) -> Iterator[WeightsFile | None]:
    """Write a model's large weights beside its file where they are `wanted` there, or where one file cannot hold them.

    The block then writes the model. Where it fails the weights vanish again, and the model that was there keeps its own;
    where it ends well, weights of a model that was replaced go.
    """
    existed = target.exists()
    if not wanted and fits_one_file(model):
        kept = None
        del model  # the block frees it
        yield None
    else:
        digest = sha256_of_weights(model)
        kept = target.with_name(f"{target.name}.{digest[:_DIGITS]}.data")
        is_new = not kept.exists()
        with replacing(kept, overwrite=True) as part:
            write_weights(model, part)
        del model
        try:
            yield WeightsFile(kept.name, digest)
        except BaseException:
            if is_new:
                kept.unlink(missing_ok=True)
            raise
    if existed:
        _remove_older(target, kept)


def _remove_older(target: Path, kept: Path | None) -> None:
    pattern = re.compile(rf"{re.escape(target.name)}\.[0-9a-f]{{{_DIGITS}}}\.data")
    for file in target.parent.iterdir():
        if pattern.fullmatch(file.name) and file != kept:
            file.unlink(missing_ok=True)
