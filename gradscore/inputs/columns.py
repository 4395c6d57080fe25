"""Parquet and Arrow tables with a column of encoded images or of numbers."""

import tempfile
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gradscore.errors import InputError
from gradscore.inputs.arrow_headers import batch_rows
from gradscore.inputs.containers import Container
from gradscore.inputs.entries import Entry, ImageEntry, Listing, utf8
from gradscore.inputs.images import fitted
from gradscore.model.metadata import ModelMetadata

_IMAGE_NAMES = ("image", "images", "bytes", "content", "img", "png", "jpg")
_FEATURE_NAMES = ("features", "x", "pixels", "embedding")
_BROKEN = (OSError, ValueError, KeyError, NotImplementedError, MemoryError)  # Arrow's own exceptions derive from these
_HELD = 3  # row groups kept in memory: the decoding threads read from neighbouring ones


@dataclass(frozen=True)
class ImageCell(ImageEntry):
    """An encoded image in a table."""

    id: str
    table: "TableRows"
    index: int

    def content(self) -> bytes:
        """Return the cell's bytes."""
        value = self.table.cell(self.index).as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is None:
            raise InputError("the table's cell holds no image bytes (null)")
        return bytes(content)


@dataclass(frozen=True)
class FeatureCell:
    """A list of numbers in a table."""

    id: str
    table: "TableRows"
    index: int

    def read(self, metadata: ModelMetadata) -> NDArray[Any]:
        """Return the numbers in the shape of the model's input."""
        cell = self.table.cell(self.index)
        if not cell.is_valid or cell.values.null_count:
            raise InputError("the table's cell holds nulls")
        values = cell.values.to_numpy(zero_copy_only=False)
        shape = [extent or -1 for extent in metadata.input_shape[1:]]
        try:
            row = values.reshape(1, *shape)
        except ValueError as error:
            raise InputError(f"{len(values)} numbers do not fit the model's input {shape}") from error
        result: NDArray[Any] = fitted(row, metadata.preprocessing, metadata.input_shape, metadata.inputs[0].dtype)[0]
        return result


class TableRows(Listing):
    """The rows of a table, read one row group at a time.

    `load` returns columns of one group.

    An id is the value of the column `id`. Without that column it is `name#row`, or `class/name#row` if there is a
    column `label`.
    """

    def __init__(self, path: Path, schema: Any, sizes: list[int], load: Callable[[int, list[str]], Any]) -> None:
        self._column, self._cell = _column(path, schema)
        self._ends = list(accumulate(sizes))
        self._load = load
        self._held: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()
        if not self._ends or not self._ends[-1]:
            raise InputError(f"{path} holds no rows")
        self._ids = self._named(utf8(path.name), schema.names)

    def __len__(self) -> int:
        return self._ends[-1]

    def entry(self, index: int) -> Entry:
        """Return the entry of one row."""
        entry: Entry = self._cell(self._ids[index], self, index)
        return entry

    def ids(self) -> Iterator[str]:
        """Yield the ids in order."""
        return iter(self._ids)

    def cell(self, index: int) -> Any:
        """Return the Arrow scalar of one row."""
        group = bisect_right(self._ends, index)
        try:
            with self._lock:
                column = self._held.get(group)
                if column is None:
                    column = self._held[group] = self._load(group, [self._column]).column(self._column)
                self._held.move_to_end(group)
                while len(self._held) > _HELD:
                    self._held.popitem(last=False)
        except _BROKEN as error:
            raise InputError(f"the table cannot be read here: {str(error).splitlines()[0]}") from error
        return column[index - (self._ends[group - 1] if group else 0)]

    def _named(self, name: str, columns: list[str]) -> list[str]:
        if "id" in columns:
            return [str(value) for value in self._whole("id")]
        if "label" in columns:
            return [f"{label}/{name}#{row}" for row, label in enumerate(self._whole("label"))]
        return [f"{name}#{row}" for row in range(len(self))]

    def _whole(self, column: str) -> Iterator[Any]:
        for group in range(len(self._ends)):
            yield from self._load(group, [column]).column(column).to_pylist()


def open_parquet(path: Path) -> Listing:
    """List the rows of a Parquet file."""
    import pyarrow as pa  # noqa: PLC0415 - listing images needs no pyarrow
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        file = pq.ParquetFile(path)  # not mapped: if another process truncated a mapped file, this process would crash
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        return TableRows(path, file.schema_arrow, sizes, file.read_row_group)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}") from error


def open_arrow(path: Path) -> Listing:
    """List the rows of an Arrow file, read one batch at a time.

    A stream is first copied to a temporary file.
    """
    import pyarrow as pa  # noqa: PLC0415 - listing images needs no pyarrow

    try:
        file = pa.OSFile(str(path))  # not mapped, as in `open_parquet`
        try:
            batches = pa.ipc.open_file(file)
        except pa.ArrowInvalid:
            file.seek(0)
            file = _as_file(pa.ipc.open_stream(file))
            batches = pa.ipc.open_file(file)
        return TableRows(path, batches.schema, batch_rows(file), _BatchColumns(file, batches.schema))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable Arrow file: {str(error).splitlines()[0]}") from error


class _BatchColumns:
    """Reads one column of one batch of an Arrow file, and no other column."""

    def __init__(self, file: Any, schema: Any) -> None:
        self._file, self._schema = file, schema
        self._readers: dict[str, Any] = {}

    def __call__(self, group: int, columns: list[str]) -> Any:
        import pyarrow as pa  # noqa: PLC0415 - listing images needs no pyarrow

        (column,) = columns
        if column not in self._readers:
            options = pa.ipc.IpcReadOptions(included_fields=[self._schema.get_field_index(column)])
            self._readers[column] = pa.ipc.open_file(self._file, options=options)
        return _checked(pa.Table.from_batches([self._readers[column].get_batch(group)]))


def _as_file(stream: Any) -> Any:
    """Copy a stream to a temporary file: the batches of a stream allow no random access."""
    import pyarrow as pa  # noqa: PLC0415 - listing images needs no pyarrow

    with tempfile.NamedTemporaryFile(prefix="gradscore-") as copy:  # stays readable without its name
        with pa.ipc.new_file(copy, stream.schema) as writer:
            for batch in stream:
                writer.write_batch(batch)
        copy.flush()
        return pa.OSFile(copy.name)


def _checked(table: Any) -> Any:
    """Validate a table.

    Arrow has no checksums, and reading a cell at a damaged offset would crash the process.
    """
    table.validate(full=True)
    return table


def _column(path: Path, schema: Any) -> tuple[str, type[ImageCell] | type[FeatureCell]]:
    """Choose the column of inputs by name, or else the only one of a fitting type."""
    for names, fits, cell in ((_IMAGE_NAMES, _holds_images, ImageCell), (_FEATURE_NAMES, _holds_numbers, FeatureCell)):
        fitting = [field.name for field in schema if fits(field.type)]
        known = [name for name in names if name in fitting] or fitting
        if len(known) == 1 or (known and known[0] in names):
            return known[0], cell
    raise InputError(
        f"{path} has the columns {', '.join(schema.names)}: name the one with encoded images `image`, or the one with "
        "lists of numbers `features`"
    )


def _holds_images(kind: Any) -> bool:
    from pyarrow import types  # noqa: PLC0415 - listing images needs no pyarrow

    if types.is_struct(kind):
        return any(field.name == "bytes" and _holds_images(field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _holds_numbers(kind: Any) -> bool:
    from pyarrow import types  # noqa: PLC0415 - listing images needs no pyarrow

    listed = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(listed and (types.is_floating(kind.value_type) or types.is_integer(kind.value_type)))


CONTAINERS: Mapping[str, Container] = {
    ".parquet": lambda path, _: open_parquet(path),
    ".arrow": lambda path, _: open_arrow(path),
    ".feather": lambda path, _: open_arrow(path),
}
