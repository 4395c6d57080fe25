"""Inputs of a source as small pictures inside the page."""

import base64
import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gradscore.errors import InputError
from gradscore.metadata import InputTensor, ModelMetadata, Preprocessing
from gradscore.sources import ArrayRow, Entry, ImageFile, Source

SIDE = 128  # pixels at most


def index(sources: Mapping[str, Source]) -> dict[tuple[str, str], Entry]:
    """Return each entry by the group and the id of its row in a score table."""
    return {(group, entry.id): entry for group, source in sources.items() for entry in source}


def picture(entry: Entry) -> str | None:
    """Return a data URI of a PNG, at most 128 pixels a side; None where the input is no picture or cannot be read."""
    try:
        pixels = _pixels(entry)
    except InputError:
        return None  # such rows have an error in the table and are not shown; a file may also have gone since
    if pixels is None:
        return None
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _pixels(entry: Entry) -> NDArray[np.uint8] | None:
    """Return [H, W] or [H, W, 3], or None."""
    if isinstance(entry, ImageFile):
        height, width = _size(entry)
        shown = Preprocessing("image", 3, height, width, scale=1.0, mean=(0.0,), std=(1.0,), color="convert")
        inputs = (InputTensor("x", (None, 3, height, width)),)
        metadata = ModelMetadata(source_sha256="", inputs=inputs, logits="", classes=0, layers=(), preprocessing=shown)
        return np.moveaxis(entry.read(metadata), 0, -1).round().astype(np.uint8)
    return _from_array(entry.rows[entry.index]) if isinstance(entry, ArrayRow) else None


def _size(entry: ImageFile) -> tuple[int, int]:
    try:
        with Image.open(entry.path) as image:
            scale = min(1.0, SIDE / max(image.size))
            return max(1, round(image.height * scale)), max(1, round(image.width * scale))
    except Exception as error:  # damaged headers make decoders raise nearly anything
        raise InputError(f"{entry.id} is no readable image") from error


def _from_array(row: NDArray[np.generic]) -> NDArray[np.uint8] | None:
    values = row
    if values.ndim == 3 and values.shape[0] in (1, 3):
        values = np.moveaxis(values, 0, -1)
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if not (values.ndim == 2 or (values.ndim == 3 and values.shape[-1] == 3)):
        return None
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values).astype(np.uint8)
    floats = values.astype(np.float64)
    if not np.isfinite(floats).all():
        return None
    spread = float(floats.max() - floats.min()) or 1.0
    return np.asarray(((floats - floats.min()) * (255 / spread)).round(), dtype=np.uint8)
