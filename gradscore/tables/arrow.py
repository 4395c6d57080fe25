"""Arrow arrays made from buffers.

`pyarrow.array` would import pandas if it is installed, which takes 0.5 s and 50 MB.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def validity(missing: npt.NDArray[np.bool_]) -> pa.Buffer | None:
    """Return Arrow's validity buffer for the values, or None if none is missing."""
    return pa.py_buffer(np.packbits(~missing, bitorder="little")) if missing.any() else None


def numbers(values: npt.NDArray[np.number], there: pa.Buffer | None) -> pa.Array:
    """Return an Arrow array of numbers; it shares the memory of a contiguous array.

    `there` comes from `validity`.
    """
    buffers = [there, pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), buffers)


def columns(values: npt.NDArray[np.number], there: pa.Buffer | None) -> list[pa.Array]:
    """Return an Arrow array for each column of [N, F], all in one buffer.

    `there` comes from `validity`.
    """
    whole = np.ascontiguousarray(values.T)
    buffer, kind, size = pa.py_buffer(whole), pa.from_numpy_dtype(whole.dtype), whole.itemsize * len(values)
    return [
        pa.Array.from_buffers(kind, len(values), [there, buffer.slice(index * size, size)])
        for index in range(len(whole))
    ]


def strings(values: Sequence[str | None]) -> pa.Array:
    """Return an Arrow array of strings, with null for None."""
    count, gone = len(values), values.count(None)
    if gone == count:
        return pa.nulls(count, pa.string())
    texts = [value or "" for value in values]
    content, sizes = "".join(texts).encode(), list(map(len, texts))
    if len(content) != sum(sizes):
        sizes = [len(text.encode()) for text in texts]
    ends = np.zeros(count + 1, np.int32)
    np.cumsum(np.array(sizes, np.int32), out=ends[1:])
    there = validity(np.array([value is None for value in values])) if gone else None
    return pa.StringArray.from_buffers(count, pa.py_buffer(ends), pa.py_buffer(content), there)
