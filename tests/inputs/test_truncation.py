"""A file that is truncated while it is read gives error rows. It never crashes the process, as a mapped file would."""

import gzip
import io
import os
import struct
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gradscore import InputError, Scorer, open_source
from gradscore.inputs import stored
from gradscore.inputs.sources import Source
from gradscore.model.metadata import ModelMetadata
from gradscore.model.preprocessing import InputTensor, Preprocessing

COUNT, SIDE = 400, 40
IMAGES = ModelMetadata(
    "", (InputTensor("x", (None, 1, SIDE, SIDE)),), "y", 2, (), preprocessing=Preprocessing("image", 1, SIDE, SIDE)
)
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE), dtype=np.uint8)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def npy(path):
    np.save(path, PIXELS)


def npz(path):
    np.savez(path, images=PIXELS)


def idx(path):
    path.write_bytes(struct.pack(">HBBIII", 0, 8, 3, *PIXELS.shape) + PIXELS.tobytes())


def idx_gz(path):
    path.write_bytes(gzip.compress(struct.pack(">HBBIII", 0, 8, 3, *PIXELS.shape) + PIXELS.tobytes()))


def table():
    return pa.table({"image": [png(one) for one in PIXELS], "id": [f"{index:03d}" for index in range(COUNT)]})


def parquet(path):
    pq.write_table(table(), path, row_group_size=50)


def arrow_file(path):
    with pa.ipc.new_file(str(path), table().schema) as writer:
        writer.write_table(table(), max_chunksize=50)


def arrow_stream(path):
    with pa.ipc.new_stream(str(path), table().schema) as writer:
        writer.write_table(table(), max_chunksize=50)


def archive_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        for index, one in enumerate(PIXELS):
            archive.writestr(f"{index:03d}.png", png(one))


def archive_tar(path):
    with tarfile.open(path, "w") as archive:
        for index, one in enumerate(PIXELS):
            info = tarfile.TarInfo(f"{index:03d}.png")
            info.size = len(png(one))
            archive.addfile(info, io.BytesIO(png(one)))


WRITERS = {
    "x.npy": npy, "x.npz": npz, "x-images-idx3-ubyte": idx, "x-images-idx3-ubyte.gz": idx_gz, "x.parquet": parquet,
    "x.feather": arrow_file, "x.arrow": arrow_stream, "x.zip": archive_zip, "x.tar": archive_tar,
}  # fmt: skip
HELD = {"x.npz", "x-images-idx3-ubyte.gz", "x.arrow"}  # unpacked or copied when they are opened


def read(entry):
    try:
        return entry.read(IMAGES)
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("name", ["x.npy", "x-images-idx3-ubyte", "x-images-idx3-ubyte.gz"])
@pytest.mark.parametrize("read_at", [stored.read_at, stored.read_in_turn])
def test_threads_read_rows_of_one_file(read_at, name, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "read_at", read_at)
    WRITERS[name](tmp_path / name)
    entries = open_source([tmp_path / name]).entries
    order = np.random.default_rng(1).integers(0, COUNT, 4000)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda index: read(entries[index]), order.tolist(), chunksize=50))
    np.testing.assert_array_equal(np.concatenate(found), PIXELS[order])


def test_a_file_cut_short_where_threads_take_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "read_at", stored.read_in_turn)
    npy(tmp_path / "x.npy")
    entries = open_source([tmp_path / "x.npy"]).entries
    os.truncate(tmp_path / "x.npy", 128 + SIDE * SIDE + 10)
    np.testing.assert_array_equal(read(entries[0]), PIXELS[:1])
    assert read(entries[1]) == f"the array cannot be read here: its file now ends {SIDE * SIDE - 10:,} bytes too early"


@pytest.mark.parametrize("name", WRITERS)
def test_files_cut_short_while_they_are_read(name, tmp_path):
    path = tmp_path / name
    WRITERS[name](path)
    entries = list(open_source([path]))
    np.testing.assert_array_equal(read(entries[0]), PIXELS[:1])
    os.truncate(path, path.stat().st_size // 3)
    found = [read(entry) for entry in entries]
    for one, pixels in zip(found, PIXELS, strict=True):
        assert isinstance(one, str) or np.array_equal(one, pixels[None])
    broken = sum(isinstance(one, str) for one in found)
    assert broken == 0 if name in HELD else COUNT / 2 < broken <= COUNT
    os.truncate(path, 0)
    assert {type(read(entry)) for entry in entries} <= {str, np.ndarray}


def test_a_run_goes_on_over_a_file_that_is_cut_short(prepared, tmp_path):
    import torch

    model = prepared(
        "cut",
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(SIDE * SIDE, 3)).eval(),
        torch.zeros(2, 1, SIDE, SIDE),
    )
    npy(tmp_path / "x.npy")
    with Scorer.load(model) as scorer:
        rows = scorer.stream(Source(open_source([tmp_path / "x.npy"]).entries), batch_size=8)
        first = next(rows)
        os.truncate(tmp_path / "x.npy", 128)
        errors = [error for batch in (first, *rows) for error in batch.errors]
    assert errors[:8] == [None] * 8
    assert len(errors) == COUNT
    assert "ends" in errors[-1]


def test_arrays_by_column_and_of_objects(tmp_path):
    np.save(tmp_path / "x.npy", np.asfortranarray(PIXELS[:3]))
    np.testing.assert_array_equal([read(entry)[0] for entry in open_source([tmp_path / "x.npy"])], PIXELS[:3])
    np.save(tmp_path / "y.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="is not a readable NumPy file"):
        open_source([tmp_path / "y.npy"])
    (tmp_path / "z.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-1])
    with pytest.raises(InputError, match="is not a readable NumPy file"):
        open_source([tmp_path / "z.npy"])
