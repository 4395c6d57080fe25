"""The file of references: what is written is read again, and nothing else is."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from gradscore.detectors import DETECTORS, DetectorReference, reference
from gradscore.errors import ModelError, OutputExistsError
from tests.detectors.drawn import world

DRAWN = world(2)


@pytest.fixture(scope="module")
def learned():
    return DetectorReference.learned(DRAWN.known, DRAWN.head, list(DETECTORS), model_fingerprint="abc")


@pytest.fixture
def written(learned, tmp_path):
    """Return a function that writes the reference with other tensors or metadata, and returns its path."""

    def write(tensors=None, **changes):
        path = tmp_path / "reference.safetensors"
        learned.save(path, overwrite=True)
        with safe_open(path, framework="numpy") as opened:
            held = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            said = json.loads(opened.metadata()["gradscore"]) | changes
        kept = {name: one for name, one in (held | (tensors or {})).items() if one is not None}
        save_file(kept, path, metadata={"gradscore": json.dumps(said)})
        return path

    return write


def test_what_is_written_is_read_again(learned, tmp_path):
    path = tmp_path / "reference.safetensors"
    learned.save(path)
    again = DetectorReference.load(path)
    assert (again.model_fingerprint, again.rows) == ("abc", len(DRAWN.known))
    assert set(again.arrays) == {name for name, one in DETECTORS.items() if one.has_reference}
    for name, arrays in learned.arrays.items():
        assert set(again.of(name)) == set(arrays)
        for key, one in arrays.items():
            np.testing.assert_array_equal(again.of(name)[key], one)
        confidence = DETECTORS[name].confidence(DRAWN.new, DRAWN.head, again.of(name))
        np.testing.assert_array_equal(confidence, DETECTORS[name].confidence(DRAWN.new, DRAWN.head, arrays))
    assert again.of("energy") is None


def test_the_same_rows_make_the_same_file(learned, tmp_path):
    for name in ("one", "two"):
        DetectorReference.learned(DRAWN.known, DRAWN.head, list(DETECTORS), model_fingerprint="abc").save(
            tmp_path / name
        )
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_an_existing_file_stays(learned, tmp_path):
    path = tmp_path / "reference.safetensors"
    learned.save(path)
    with pytest.raises(OutputExistsError):
        learned.save(path)
    learned.save(path, overwrite=True)


def test_a_file_as_written_is_read(written):
    assert DetectorReference.load(written()).rows == len(DRAWN.known)


@pytest.mark.parametrize(
    ("tensors", "changes", "message"),
    [
        ({}, {"kind": "verdict"}, "is not a reference"),
        ({}, {"schema_version": 2}, "has reference schema 2, this gradscore reads 1"),
        ({}, {"model_fingerprint": ""}, "does not say which model"),
        ({}, {"rows": "many"}, "does not say which model"),
        ({"odd/one": np.ones(1)}, {}, "arrays of 'odd', which no detector has"),
        ({"energy/one": np.ones(1)}, {}, "arrays of 'energy', which no detector has"),
        ({"knn/more": np.ones(1)}, {}, "knn: it has the arrays bank, more, not bank"),
        ({"vim/alpha": None}, {}, "vim: it has the arrays basis, origin, not alpha"),
        ({"vim/alpha": np.ones(2)}, {}, r"vim: its array alpha has the shape \(2,\)"),
        ({"vim/alpha": np.ones((1, 1))}, {}, r"vim: its array alpha has the shape \(1, 1\)"),
        ({"knn/bank": np.ones((0, 9))}, {}, "knn: its array bank"),
        ({"knn/bank": np.ones((4, 8))}, {}, r": its array \w+ has the shape"),
        ({"vim/alpha": np.array([np.nan])}, {}, "vim/alpha is not all finite numbers"),
        ({"vim/alpha": np.ones(1, np.float32)}, {}, "vim/alpha is not all finite numbers in double precision"),
        ({"mahalanobis_layers/fc1/means": np.ones((5, 7))}, {}, "mahalanobis_layers: its array means"),
        ({"mahalanobis_layers/fc2/means": np.ones((5, 7))}, {}, "mahalanobis_layers: it has the arrays means"),
    ],
)
def test_what_no_reference_has_is_refused(written, tensors, changes, message):
    with pytest.raises(ModelError, match=message):
        DetectorReference.load(written(tensors, **changes))


def test_other_files_are_refused(tmp_path, written, monkeypatch):
    with pytest.raises(ModelError, match=r"no such reference: .*`gradscore reference MODEL KNOWN_INPUTS"):
        DetectorReference.load(tmp_path / "nothing")
    (tmp_path / "text").write_text("this is no safetensors file, but it has some bytes")
    with pytest.raises(ModelError, match="not a safetensors file of numbers"):
        DetectorReference.load(tmp_path / "text")
    save_file({"a": np.ones(2)}, tmp_path / "weights")
    with pytest.raises(ModelError, match="is not a reference"):
        DetectorReference.load(tmp_path / "weights")
    save_file({"a": np.ones(2)}, tmp_path / "broken", metadata={"gradscore": "{"})
    with pytest.raises(ModelError, match="not a safetensors file of numbers"):
        DetectorReference.load(tmp_path / "broken")
    whole = written()
    (tmp_path / "cut").write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not a safetensors file of numbers"):
        DetectorReference.load(tmp_path / "cut")
    monkeypatch.setattr(reference, "LARGEST_FILE", -(2**20))
    with pytest.raises(ModelError, match=r"has [\d,]+ bytes; a reference has at most"):
        DetectorReference.load(whole)


def test_a_reference_too_large_to_write(learned, tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "LARGEST_FILE", 1000)
    with pytest.raises(ModelError, match=r"and may have 1,000: choose fewer detectors"):
        learned.save(tmp_path / "reference.safetensors")
    assert not list(tmp_path.iterdir())
