"""How many rows each batch of an Arrow file holds, from the batches' headers: pyarrow tells it of batches read whole.

Of a file of 400 MB whose only column is images, pyarrow reads 396 MB to count the rows, nine times as long as this takes.
The file's footer and every batch's header are flatbuffers, whose tables say where each of their fields lies
(https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format, File.fbs and Message.fbs there).
"""

import struct
from typing import Any

_ENDING = struct.Struct("<i6x")  # the footer's length, and the format's name
_BLOCK = struct.Struct("<qi4xq")  # where a batch's header begins, its length, and that of what follows
_BATCHES, _HEADER, _LENGTH, _COLUMNS = 3, 2, 0, 1  # fields by number: of Footer, of Message, and two of RecordBatch
_CONTINUED = 0xFFFF_FFFF  # stands before a header's length since version 0.15


def batch_rows(file: Any) -> list[int]:
    """Return the rows of each batch of an open Arrow file; what the batches hold stays unread.

    Raises
    ------
    ValueError
        A header is damaged.
    """
    try:
        size = file.size() - _ENDING.size
        (length,) = _ENDING.unpack(file.read_at(_ENDING.size, size))
        footer = file.read_at(length, size - length)
        blocks = _field(footer, _target(footer, 0), _BATCHES)
        if blocks is None:
            return []
        first = _target(footer, blocks) + 4
        (count,) = struct.unpack_from("<I", footer, first - 4)
        places = _BLOCK.iter_unpack(footer[first : first + count * _BLOCK.size])
        return [_rows(file.read_at(extent, offset)) for offset, extent, _ in places]
    except struct.error as error:
        raise ValueError(f"a header of a batch is damaged: {error}") from error


def _rows(header: bytes) -> int:
    """Read a batch's number of rows, which its first column must agree with, as pyarrow demands."""
    (mark,) = struct.unpack_from("<I", header)
    batch = _followed(header, _target(header, 8 if mark == _CONTINUED else 4), _HEADER)
    place = _field(header, batch, _LENGTH)
    if place is None:  # flatbuffers leave out what is zero
        return 0
    (count,) = struct.unpack_from("<q", header, place)
    (own,) = struct.unpack_from("<q", header, _followed(header, batch, _COLUMNS) + 4)
    if not 0 <= count == own:
        raise ValueError("a header of a batch is damaged: its columns do not have its number of rows")
    return int(count)


def _target(buffer: bytes, place: int) -> int:
    """Follow the offset that stands at a place."""
    return place + int(struct.unpack_from("<I", buffer, place)[0])


def _followed(buffer: bytes, table: int, number: int) -> int:
    """Follow the offset that a table holds in a field."""
    place = _field(buffer, table, number)
    if place is None:
        raise ValueError("a header of a batch is damaged: it lacks a field")
    return _target(buffer, place)


def _field(buffer: bytes, table: int, number: int) -> int | None:
    """Return where a table's field lies, or None where it is left out."""
    fields = table - struct.unpack_from("<i", buffer, table)[0]
    entry = 4 + 2 * number
    if entry >= struct.unpack_from("<H", buffer, fields)[0]:
        return None
    (offset,) = struct.unpack_from("<H", buffer, fields + entry)
    return table + offset if offset else None
