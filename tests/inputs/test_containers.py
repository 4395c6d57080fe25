"""Archives, idx pairs, tables, lists, globs and URLs: the same images give the same inputs in all of them."""

import bz2
import functools
import gzip
import http.server
import io
import lzma
import os
import struct
import tarfile
import threading
import uuid
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gradscore import InputError, open_source
from gradscore.inputs.arrow_headers import batch_rows
from gradscore.inputs.images import fitted, numbers
from gradscore.inputs.sources import Source
from gradscore.model.metadata import ModelMetadata
from gradscore.model.preprocessing import InputTensor, Preprocessing

IMAGES = ModelMetadata(
    "", (InputTensor("x", (None, 1, 6, 5)),), "y", 2, (), preprocessing=Preprocessing("image", 1, 6, 5)
)
ARRAYS = ModelMetadata("", (InputTensor("x", (None, 7)),), "y", 2, ())
NAMES = ("b/2.png", "a/1.png", "3.png")


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(3).integers(0, 256, (3, 6, 5), dtype=np.uint8)


@pytest.fixture(scope="module")
def pngs(pixels):
    def encode(one):
        buffer = io.BytesIO()
        Image.fromarray(one).save(buffer, "PNG")
        return buffer.getvalue()

    return [encode(one) for one in pixels]


def ids(source):
    return [entry.id for entry in source]


def read(source, metadata=IMAGES):
    batch = np.stack([entry.read(metadata) for entry in source])
    return numbers(fitted(batch, metadata.preprocessing, metadata.input_shape), metadata.preprocessing, "float32")


def expected(pixels):
    return pixels[:, None] / np.float32(255)


def zipped(path, names, contents):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in zip(names, contents, strict=True):
            archive.writestr(name, content)
    return path


def tarred(path, names, contents, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in zip(names, contents, strict=True):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


MAKERS = {
    "x.zip": zipped,
    "x.tar": tarred,
    "x.tar.gz": lambda *a: tarred(*a, "w:gz"),
    "x.tgz": lambda *a: tarred(*a, "w:gz"),
    "x.tar.bz2": lambda *a: tarred(*a, "w:bz2"),
    "x.tar.xz": lambda *a: tarred(*a, "w:xz"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_archives_are_read_in_their_own_order(name, pixels, pngs, tmp_path):
    extra = ("notes.txt", "__MACOSX/3.png", "a/._1.png")
    path = MAKERS[name](tmp_path / name, (*NAMES, *extra), (*pngs, b"", b"", b""))
    source = open_source([path])
    assert ids(source) == list(source.ids()) == list(NAMES)
    np.testing.assert_allclose(read(source), expected(pixels), rtol=1e-6)
    np.testing.assert_array_equal(read(Source(source.entries[1:])), read(source)[1:])
    assert source.entries[-1].id == "3.png"
    (tmp_path / "other.png").write_bytes(pngs[0])
    assert ids(open_source([path, tmp_path / "other.png"])) == [
        *(f"{name}/{one}" for one in NAMES), f"{tmp_path}/other.png",
    ]  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_broken_archives_are_errors_never_crashes(name, pngs, tmp_path):
    """Cut or with a flipped bit, an archive is an error, or its members are whole or error rows."""
    content = MAKERS[name](tmp_path / name, NAMES, pngs).read_bytes()
    rng = np.random.default_rng(1)
    cases = [content[: int(len(content) * share)] for share in np.linspace(0, 0.99, 20)]
    for place in rng.integers(0, len(content), 60):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        cases.append(bytes(flipped))
    outcomes = set()
    for case in cases:
        (tmp_path / name).write_bytes(case)
        try:
            entries = list(open_source([tmp_path / name]))
        except InputError:
            outcomes.add("refused")
            continue
        for entry in entries:
            try:
                assert entry.read(IMAGES).shape == (1, 6, 5)
                outcomes.add("read")
            except InputError:
                outcomes.add("row")
    assert "refused" in outcomes


def test_an_archive_without_images_and_one_with_a_password(pngs, tmp_path):
    with pytest.raises(InputError, match="holds no images"):
        open_source([zipped(tmp_path / "x.zip", ["a.txt"], [b""])])
    path = zipped(tmp_path / "y.zip", ["a.png"], pngs[:1])
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1  # says that the member is encrypted
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"cannot be unpacked: .*password"):
        read(open_source([path]))


def idx(array, code=0x08):
    return (
        struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
        + array.astype(array.dtype.newbyteorder(">")).tobytes()
    )


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"), ("train-images.idx3-ubyte", "train-labels.idx1-ubyte"),
        ("emnist-digits-test-images-idx3-ubyte.gz", "emnist-digits-test-labels-idx1-ubyte.gz"), ("x.idx", None),
        ("x.idx.gz", None),
    ],
)  # fmt: skip
def test_idx_pairs(images, labels, pixels, tmp_path):
    def put(name, array):
        (tmp_path / name).write_bytes(gzip.compress(idx(array)) if name.endswith(".gz") else idx(array))

    put(images, pixels)
    if labels:
        put(labels, np.array([7, 0, 9], np.uint8))
    source = open_source([tmp_path / images])
    folders = ("7/", "0/", "9/") if labels else ("", "", "")
    assert ids(source) == list(source.ids()) == [f"{folder}{images}#{row}" for row, folder in enumerate(folders)]
    np.testing.assert_allclose(read(source), expected(pixels), rtol=1e-6)
    put(images, pixels.swapaxes(1, 2))
    np.testing.assert_allclose(read(open_source([tmp_path / images], idx_transposed=True)), expected(pixels), rtol=1e-6)


def test_broken_idx_files(pixels, tmp_path):
    whole = idx(pixels)
    gz = gzip.compress(whole)
    bomb = gzip.compress(whole + bytes(10_000_000))
    cases = {"cut.idx": whole[:-1], "long.idx": whole + b"0", "text.idx": b"id,label\n", "empty.idx": b"", "cut.idx.gz": gz[:-20],
             "bomb.idx.gz": bomb, "plain.idx.gz": whole, "empty.idx.gz": b"", "header.idx": whole[:7]}  # fmt: skip
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name} is not a readable idx file"):
            open_source([tmp_path / name])
    (tmp_path / "a-images-idx3-ubyte").write_bytes(whole)
    (tmp_path / "a-labels-idx1-ubyte").write_bytes(idx(np.zeros(4, np.uint8)))
    with pytest.raises(InputError, match="holds 3 inputs, but its labels have the shape"):
        open_source([tmp_path / "a-images-idx3-ubyte"])


def write_table(path, table):
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=2)
    else:
        new = pa.ipc.new_stream if path.suffix == ".arrow" else pa.ipc.new_file
        with new(str(path), table.schema) as writer:
            writer.write_table(table)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather"])
def test_tables_of_images_and_of_features(suffix, pixels, pngs, tmp_path):
    path = tmp_path / f"x{suffix}"
    source = open_source([write_table(path, pa.table({"image": pngs, "label": [4, 1, 4]}))])
    assert ids(source) == list(source.ids()) == [f"4/x{suffix}#0", f"1/x{suffix}#1", f"4/x{suffix}#2"]
    np.testing.assert_allclose(read(source), expected(pixels), rtol=1e-6)
    nested = pa.array([{"bytes": content, "path": None} for content in pngs])
    source = open_source([write_table(path, pa.table({"image": nested, "id": ["u", "v", "w"], "label": [1, 2, 3]}))])
    assert ids(source) == ["u", "v", "w"]
    np.testing.assert_allclose(read(source), expected(pixels), rtol=1e-6)
    rows = np.random.default_rng(0).standard_normal((3, 7)).astype(np.float32)
    for kind in (pa.list_(pa.float32()), pa.list_(pa.float32(), 7), pa.large_list(pa.float64())):
        table = pa.table({"features": pa.array(rows.tolist(), kind), "note": ["a", "b", "c"]})
        np.testing.assert_array_equal(read(open_source([write_table(path, table)]), ARRAYS), rows)


@pytest.mark.parametrize("packed", [None, "lz4", "zstd"])
@pytest.mark.parametrize("legacy", [False, True])
def test_rows_of_batches_are_counted_from_their_headers(packed, legacy, tmp_path):
    path = tmp_path / "x.feather"
    table = pa.table({"image": [b"x" * 10_000] * 50, "label": pa.array(["a", "b"] * 25).dictionary_encode()})
    options = pa.ipc.IpcWriteOptions(compression=packed, use_legacy_format=legacy)
    with pa.ipc.new_file(str(path), table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=20)
        writer.write_batch(table.to_batches()[0][:0])
        writer.write_table(table, max_chunksize=7)
    with pa.OSFile(str(path)) as file:
        assert batch_rows(file) == [20, 20, 10, 0, *[7] * 7, 1]
    assert ids(open_source([path]))[98:] == ["a/x.feather#98", "b/x.feather#99"]
    with pa.ipc.new_file(str(path), table.schema):
        pass
    with pa.OSFile(str(path)) as file:
        assert batch_rows(file) == []


def test_images_are_not_read_when_their_table_is_listed(tmp_path, monkeypatch):
    path = tmp_path / "x.feather"
    table = pa.table({"id": [str(row) for row in range(200)], "image": [b"x" * 50_000] * 200})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=20)
    with Counted(str(path)) as counted:
        monkeypatch.setattr(pa, "OSFile", lambda _: pa.PythonFile(counted, "r"))
        source = open_source([path])
        assert ids(source) == table["id"].to_pylist()
        assert counted.taken < 100_000
        with pytest.raises(InputError, match="not an image of a known format"):
            source.entries[150].read(IMAGES)
        assert 1_000_000 < counted.taken < 1_100_000


class Counted(io.FileIO):
    """A file that counts the bytes read from it."""

    taken = 0

    def read(self, size=-1):
        content = super().read(size)
        self.taken += len(content)
        return content


def test_damaged_headers_of_batches(tmp_path):
    path = tmp_path / "x.feather"
    write_table(path, pa.table({"features": [[1.0, 2.0]] * 77}))
    whole = path.read_bytes()
    count = struct.pack("<q", 77)
    assert whole.count(count) >= 2  # of the batch, and of its column
    for content in (whole.replace(count, struct.pack("<q", 1 << 60), 1), whole.replace(count, struct.pack("<q", -1))):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is not a readable Arrow file: a header of a batch is damaged"):
            open_source([path])


def test_tables_that_cannot_be_read(pngs, tmp_path):
    path = tmp_path / "x.parquet"
    with pytest.raises(InputError, match=r"has the columns a, b: name the one with encoded images `image`"):
        open_source([write_table(path, pa.table({"a": [1], "b": ["x"]}))])
    with pytest.raises(InputError, match="holds no rows"):
        open_source([write_table(path, pa.table({"image": pa.array([], pa.binary())}))])
    source = open_source([write_table(path, pa.table({"image": [pngs[0], None, b"broken"]}))])
    for entry, message in zip(list(source)[1:], ["null", "known format"], strict=True):
        with pytest.raises(InputError, match=message):
            entry.read(IMAGES)
    source = open_source([write_table(path, pa.table({"x": [[1.0] * 7, [1.0], None, [None] * 7]}))])
    for entry, message in zip(list(source)[1:], ["1 numbers do not fit", "nulls", "nulls"], strict=True):
        with pytest.raises(InputError, match=message):
            entry.read(ARRAYS)
    for name in ("x.parquet", "x.arrow"):
        (tmp_path / name).write_bytes(b"PAR1 no table")
        with pytest.raises(InputError, match=f"{name} is not a readable"):
            open_source([tmp_path / name])


@pytest.fixture
def folder(pixels, pngs, tmp_path, monkeypatch):
    """Three images on disk; the working folder is theirs."""
    for name, content in zip(NAMES, pngs, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\0"])
def test_lists_of_paths(separator, folder, pixels, monkeypatch):
    content = separator.join([*(name.encode() for name in NAMES), b"gone.png", b"caf\xe9.png", b""])
    (folder / "list.txt").write_bytes(content)
    source = open_source(["@list.txt"])
    assert ids(source) == list(source.ids()) == [*NAMES, "gone.png", "caf%E9.png"]
    np.testing.assert_allclose(read(source.first(3)), expected(pixels), rtol=1e-6)
    for entry in list(source)[3:]:
        with pytest.raises(InputError, match="cannot read the file: No such file"):
            entry.read(IMAGES)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert ids(open_source(["-"])) == ids(source)
    (folder / "list.txt").write_bytes(b"\n\n")
    with pytest.raises(InputError, match="lists no inputs"):
        open_source(["@list.txt"])
    with pytest.raises(InputError, match=r"cannot read the list absent\.txt"):
        open_source(["@absent.txt"])


def test_globs(folder, pngs):
    assert ids(open_source(["*/*.png"])) == ["a/1.png", "b/2.png"]
    assert ids(open_source(["**/*.png"])) == ["3.png", "a/1.png", "b/2.png"]
    (folder / "[1].png").write_bytes(pngs[0])
    assert ids(open_source(["[1].png"])) == ["[1].png"]
    with pytest.raises(InputError, match=r"\*\.jpg: no file matches"):
        open_source(["*.jpg"])


def test_urls(pixels, pngs, tmp_path):
    import fsspec

    memory, root = fsspec.filesystem("memory"), f"/{uuid.uuid4()}"
    for name, content in zip(NAMES, pngs, strict=True):
        memory.pipe_file(f"{root}/set/{name}", content)
    memory.pipe_file(f"{root}/x.zip", zipped(tmp_path / "x.zip", NAMES, pngs).read_bytes())
    order = [2, 1, 0]
    source = open_source([f"memory:/{root}/set"])
    assert ids(source) == list(source.ids()) == [NAMES[place] for place in order]
    np.testing.assert_allclose(read(source), expected(pixels)[order], rtol=1e-6)
    np.testing.assert_allclose(read(open_source([f"memory:/{root}/x.zip"])), expected(pixels), rtol=1e-6)
    one = open_source([f"memory:/{root}/set/3.png"])
    assert ids(one) == [f"memory:/{root}/set/3.png"]
    memory.rm(f"{root}/set/3.png")
    with pytest.raises(InputError, match=r"cannot fetch memory:/.*3\.png"):
        read(one)
    for url, message in (
        (f"memory:/{root}/none/", "holds no images"), (f"memory:/{root}/none.zip", "cannot fetch"),
        ("nonsense://x/y.png", "Protocol not known"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            read(open_source([url]))


@pytest.fixture
def served(tmp_path):
    """Return the URL under which a local server shows a folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_web_server(served, folder, pixels, pngs):
    """A real protocol with a real server; `test_s3.py` has another."""
    pytest.importorskip("aiohttp", reason="aiohttp, which fsspec needs for http://, is not installed")
    zipped(folder / "x.zip", NAMES, pngs)
    np.testing.assert_allclose(read(open_source([f"{served}/x.zip"])), expected(pixels), rtol=1e-6)
    source = open_source([f"{served}/b/", f"{served}/a/1.png"])
    assert ids(source) == ["b/2.png", f"{served}/a/1.png"]
    np.testing.assert_allclose(read(source), expected(pixels)[:2], rtol=1e-6)
    (folder / "b/2.png").unlink()
    with pytest.raises(InputError, match=r"cannot fetch http://.*b/2\.png"):
        source.entries[0].read(IMAGES)
    with pytest.raises(InputError, match="cannot fetch"):
        open_source([f"{served}/gone.zip"])


def test_many_files_take_little_memory(tmp_path):
    """Only names are held: listing 20,000 files takes no more than a few megabytes."""
    import tracemalloc

    (tmp_path / "list.txt").write_bytes(b"".join(b"folder/%06d.png\n" % index for index in range(20_000)))
    tracemalloc.start()
    source = open_source([f"@{tmp_path}/list.txt"])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(source) == 20_000
    assert held < 20_000 * 150


def test_unpackers_match_their_suffixes():
    from gradscore.inputs.archives import _PACKED

    assert {gzip.open, bz2.open, lzma.open} == set(_PACKED.values())
    assert os.sep not in "".join(_PACKED)
