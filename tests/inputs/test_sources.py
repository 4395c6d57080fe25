"""A folder, a file or an archive lists every input once, in a fixed order, with a text as id."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from gradscore import InputError, open_source
from gradscore.inputs.entries import ImageFile
from gradscore.model.metadata import ModelMetadata
from gradscore.model.preprocessing import InputTensor, Preprocessing

IMAGES = ModelMetadata(
    "", (InputTensor("x", (None, 1, 6, 5)),), "y", 2, (), preprocessing=Preprocessing("image", 1, 6, 5)
)
ARRAYS = ModelMetadata("", (InputTensor("x", (None, 7)),), "y", 2, ())


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (5, 6), 255).save(path, "PNG")
    return path


def ids(*paths):
    return [entry.id for entry in open_source(paths)]


def test_a_folder_is_read_recursively_and_sorted(tmp_path):
    for name in ("b/2.png", "b/10.png", "a/x.JPG", "a-b/1.Tiff", "z.webp", "notes.txt", "b/.hidden/1.png"):
        put(tmp_path / name)
    assert ids(tmp_path) == ["a/x.JPG", "a-b/1.Tiff", "b/.hidden/1.png", "b/10.png", "b/2.png", "z.webp"]


def test_ids_of_several_folders_start_with_their_names(tmp_path, monkeypatch):
    for name in ("one/1.png", "two/1.png"):
        put(tmp_path / name)
    assert ids(tmp_path / "one", tmp_path / "two") == ["one/1.png", "two/1.png"]
    monkeypatch.chdir(tmp_path / "one")
    assert ids(".", "../two") == ["one/1.png", "two/1.png"]


def test_files_named_alone_may_have_any_suffix(tmp_path, monkeypatch):
    put(tmp_path / "picture.dat")
    put(tmp_path / "really_a_png.jpg")
    monkeypatch.chdir(tmp_path)
    entries = list(open_source(["picture.dat", "really_a_png.jpg"]))
    assert [entry.id for entry in entries] == ["picture.dat", "really_a_png.jpg"]
    for entry in entries:
        np.testing.assert_array_equal(entry.read(IMAGES), 255)


def test_linked_folders_are_entered_and_loops_end(tmp_path):
    put(tmp_path / "real/1.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/linked").symlink_to(tmp_path / "real", target_is_directory=True)
    (tmp_path / "real/up").symlink_to(tmp_path / "set", target_is_directory=True)
    (tmp_path / "set/itself").symlink_to(tmp_path / "set/itself")
    (tmp_path / "set/self.png").symlink_to(tmp_path / "set/self.png")
    source = open_source([tmp_path / "set"])
    assert [entry.id for entry in source] == ["linked/1.png", "self.png"]
    with pytest.raises(InputError, match="cannot read the file: Too many levels of symbolic links"):
        source.entries[1].read(IMAGES)


def test_unreadable_files_are_errors_of_their_own_rows(tmp_path):
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    put(tmp_path / "folder/removed.png")
    os.mkfifo(tmp_path / "pipe.png")
    entries = {entry.id: entry for entry in open_source([tmp_path])}
    (tmp_path / "folder/removed.png").unlink()
    for name in ("gone.png", "folder/removed.png"):
        with pytest.raises(InputError, match="cannot read the file: No such file"):
            entries[name].read(IMAGES)
    with pytest.raises(InputError, match="not a regular file"):
        entries["pipe.png"].read(IMAGES)


def test_a_file_without_permission_is_an_error(tmp_path, monkeypatch):
    entry = open_source([put(tmp_path / "1.png")]).entries[0]

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # root may read everything
    with pytest.raises(InputError, match="cannot read the file: Permission denied"):
        entry.read(IMAGES)


def test_a_huge_file_is_not_read(tmp_path):
    path = put(tmp_path / "1.png")
    os.truncate(path, 2**30 + 1)  # sparse
    with pytest.raises(InputError, match="1,073,741,825 bytes"):
        open_source([path]).entries[0].read(IMAGES)


def test_a_folder_that_cannot_be_listed_is_an_error_not_a_gap(tmp_path, monkeypatch):
    put(tmp_path / "open/1.png")
    put(tmp_path / "locked/2.png")
    scandir = os.scandir

    def guarded(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(InputError, match=r"cannot list the folder .*locked: Permission denied"):
        open_source([tmp_path])


def test_names_that_are_not_utf8_become_text(tmp_path):
    folder = os.fsencode(tmp_path)
    Path(os.fsdecode(folder + b"/caf\xe9")).mkdir()
    for name in (b"caf\xe9/1.png", b"\xff.png", "grün.png".encode()):
        put(Path(os.fsdecode(folder + b"/" + name)))
    source = open_source([tmp_path])
    found = [entry.id for entry in source]
    assert sorted(found) == ["%FF.png", "caf%E9/1.png", "grün.png"]
    assert pa.array(found).to_pylist() == found
    for entry in source:
        np.testing.assert_array_equal(entry.read(IMAGES), 255)


def test_nothing_to_score_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match=r"holds no images \(looked for .*\.png.*recursively"):
        open_source([tmp_path])
    with pytest.raises(InputError, match="no such file or folder"):
        open_source([tmp_path / "absent"])
    with pytest.raises(InputError, match="no inputs given"):
        open_source([])


def test_an_input_given_twice_is_an_error(tmp_path):
    path = put(tmp_path / "1.png")
    with pytest.raises(InputError, match="two inputs have the id"):
        open_source([path, path])


def test_images_for_a_model_of_arrays_are_an_error(tmp_path):
    entry = open_source([put(tmp_path / "1.png")]).entries[0]
    with pytest.raises(InputError, match=r"\[B, 7\] is not an image: give .npz or .npy"):
        entry.read(ARRAYS)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".NPZ"])
def test_rows_of_array_files(suffix, tmp_path, rng):
    rows = rng.standard_normal((3, 7)).astype(np.float32)
    path = tmp_path / f"x{suffix}"
    with path.open("wb") as file:
        np.save(file, rows) if suffix == ".npy" else np.savez_compressed(file, labels=np.arange(3), images=rows)
    source = open_source([path])
    assert [entry.id for entry in source] == [f"x{suffix}#0", f"x{suffix}#1", f"x{suffix}#2"]
    np.testing.assert_array_equal([entry.read(ARRAYS) for entry in source], rows)


def test_rows_of_token_ids(tmp_path):
    np.save(tmp_path / "ids.npy", np.arange(14).reshape(2, 7))
    tokens = ModelMetadata("", (InputTensor("x", (None, 7), "int64"),), "y", 2, ())
    row = open_source([tmp_path / "ids.npy"]).entries[1].read(tokens)
    assert row.dtype == np.int64
    assert row.tolist() == list(range(7, 14))


def test_a_row_that_does_not_fit_is_an_error_of_its_own(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 8), np.float32))
    with pytest.raises(InputError, match=r"does not fit the model's input \[B, 7\]"):
        open_source([tmp_path / "x.npy"]).entries[0].read(ARRAYS)


def test_broken_array_files(tmp_path):
    good = tmp_path / "good.npz"
    np.savez_compressed(good, x=np.random.default_rng(0).standard_normal((50, 7)))
    content = good.read_bytes()
    corrupt = bytearray(content)
    corrupt[len(content) // 2] ^= 0xFF
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    np.save(tmp_path / "long.npy", np.zeros((9, 9)))
    broken = {
        "empty.npz": b"", "empty.npy": b"", "text.npz": b"id,label", "cut.npz": content[: len(content) // 2],
        "corrupt.npz": bytes(corrupt), "objects.npy": (tmp_path / "objects.npy").read_bytes(),
        "cut.npy": (tmp_path / "long.npy").read_bytes()[:-100],
    }  # fmt: skip
    for name, data in broken.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=f"{name} is not a readable NumPy file"):
            open_source([tmp_path / name])


def test_archives_without_one_clear_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "none.npz", "w"):
        pass
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 7)), b=np.zeros((2, 7)))
    np.savez(tmp_path / "scalar.npz", x=np.float32(3))
    np.savez(tmp_path / "zero.npz", x=np.zeros((0, 7)))
    for name, message in {
        "none.npz": "holds no arrays", "two.npz": "holds the arrays a, b: name the inputs `images` or `x`",
        "scalar.npz": "first axis must count inputs", "zero.npz": "first axis must count inputs",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=message):
            open_source([tmp_path / name])


def test_parts_of_a_listing_are_its_entries(tmp_path):
    names = [f"{folder}/{index}.png" for folder in ("a", "b") for index in range(5)]
    for name in names:
        put(tmp_path / "in" / name)
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for name in names:
            archive.write(tmp_path / "in" / name, name)
    (tmp_path / "list.txt").write_text("\n".join([*map(str, names), "s3://nowhere/x.png"]))
    folder, both = tmp_path / "in", [tmp_path / "in", tmp_path / "in.zip"]
    for inputs in ([folder], both, [f"@{tmp_path}/list.txt"], [tmp_path / "in.zip"]):
        entries = open_source(inputs).entries
        wanted = list(entries)[2:9][1:4]
        part = entries[2:9][1:4]
        assert list(part) == wanted == [part[index] for index in range(-3, 0)]
        assert list(part.ids()) == [entry.id for entry in wanted]
        files = all(type(entry) is ImageFile for entry in wanted)
        assert part.paths() == ([str(entry.path) for entry in wanted] if files else None)
        with pytest.raises(IndexError):
            part[3]
    assert open_source([f"@{tmp_path}/list.txt"]).entries.paths() is None
