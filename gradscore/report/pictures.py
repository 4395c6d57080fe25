"""Small pictures of inputs, embedded in the page."""

import base64
import io
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from gradscore.errors import InputError
from gradscore.inputs.encoded import IMAGE_FORMATS
from gradscore.inputs.images import pixels
from gradscore.inputs.sources import ArrayRow, Entry, ImageEntry, Source
from gradscore.model.preprocessing import Preprocessing

SIDE = 128  # pixels at most
_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange height and width


def find(sources: Mapping[str, Source], wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Entry]:
    """Return the entries whose group and id are wanted. No other entries are created."""
    ids = {group: {name for one, name in wanted if one == group} for group in sources}
    return {
        (group, name): source.entries[index]
        for group, source in sources.items()
        for index, name in enumerate(source.ids())
        if name in ids[group]
    }


def picture(entry: Entry) -> str | None:
    """Return an input as a PNG data URI, or None if it cannot be shown.

    The PNG has at most 128 pixels a side.
    """
    try:
        found = _pixels(entry)
    except InputError:
        return None  # the file may have been deleted since it was scored
    if found is None:
        return None
    image = Image.fromarray(found)
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _pixels(entry: Entry) -> NDArray[np.uint8] | None:
    """Return the pixels [H, W] or [H, W, 3], or None if there is no picture."""
    if isinstance(entry, ImageEntry):
        content = entry.content()
        height, width = _size(content)
        shown = Preprocessing("image", 3, height, width, color="convert")
        return np.moveaxis(pixels(content, shown), 0, -1)
    return _from_array(entry.rows[entry.index : entry.index + 1][0]) if isinstance(entry, ArrayRow) else None


def _size(content: bytes) -> tuple[int, int]:
    """Return height and width of the picture, upright and at most `SIDE`."""
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            width, height = image.size
            if image.getexif().get(ExifTags.Base.Orientation, 1) in _TURNED:
                width, height = height, width
    except Exception as error:  # on damaged headers a decoder may raise any exception
        raise InputError("this is not a readable image") from error
    scale = min(1.0, SIDE / max(width, height))
    return max(1, round(height * scale)), max(1, round(width * scale))


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
