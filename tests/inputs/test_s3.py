"""Inputs in S3, read by the client s3fs from a moto server."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gradscore import InputError, Scorer, ScoreTable, open_source
from gradscore.runs.scoring_run import score_to_parquet
from gradscore.runs.verification import verify_output
from models.digits_cnn import DigitsCNN

boto3 = pytest.importorskip("boto3", reason="moto, which the extra dev brings, is not installed")
ThreadedMotoServer = pytest.importorskip(
    "moto.server", reason="moto, which the extra dev brings, is not installed"
).ThreadedMotoServer
S3FileSystem = pytest.importorskip("s3fs", reason="s3fs, which the extra dev brings, is not installed").S3FileSystem

NAMES = ("images/a/1.png", "images/a/2.png", "images/b/3.png", "images/broken.png")


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(5).integers(0, 256, (3, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(prepared):
    torch.manual_seed(0)
    return prepared("s3", DigitsCNN().eval(), torch.zeros(2, 1, 8, 8))


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(endpoint, pixels, monkeypatch):
    """A bucket with three images, a broken one, a text, and a zip archive of the images."""
    for name, value in {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket="pictures")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, one in zip(NAMES, pixels, strict=False):
            client.put_object(Bucket="pictures", Key=name, Body=png(one))
            archive.writestr(name, png(one))
    for name, content in {NAMES[3]: b"no image", "images/notes.txt": b"", "x.zip": packed.getvalue()}.items():
        client.put_object(Bucket="pictures", Key=name, Body=content)
    S3FileSystem.clear_instance_cache()
    yield client
    client.close()
    S3FileSystem.clear_instance_cache()


def test_a_folder_in_a_bucket_is_scored_and_verified(bucket, model, pixels, tmp_path):
    source = open_source(["s3://pictures/images"])
    assert list(source.ids()) == ["a/1.png", "a/2.png", "b/3.png", "broken.png"]
    with Scorer.load(model) as scorer:
        summary = score_to_parquet(scorer, source, tmp_path / "x.parquet")
        wanted = scorer.score(pixels)
    assert (summary.scored, summary.failed) == (3, 1)
    table = ScoreTable.read(tmp_path / "x.parquet")
    np.testing.assert_array_equal(table.features()[:3], wanted.features)
    assert "not an image of a known format" in table.errors()[3]
    assert not verify_output(tmp_path / "x.parquet", open_source(["s3://pictures/images/"])).problems
    bucket.delete_object(Bucket="pictures", Key=NAMES[0])
    S3FileSystem.clear_instance_cache()
    assert verify_output(tmp_path / "x.parquet", open_source(["s3://pictures/images/"])).problems


def test_an_archive_in_a_bucket(bucket, model, pixels):
    with Scorer.load(model) as scorer:
        (batch,) = scorer.stream(open_source(["s3://pictures/x.zip"]))
        np.testing.assert_array_equal(batch.scores.features, scorer.score(pixels).features)
    assert batch.ids == NAMES[:3]


def test_an_object_that_goes_is_an_error_row(bucket, model):
    source = open_source(["s3://pictures/images", "s3://pictures/images/a/1.png"])
    bucket.delete_object(Bucket="pictures", Key=NAMES[1])
    with Scorer.load(model) as scorer:
        (batch,) = scorer.stream(source)
    assert [error is None for error in batch.errors] == [True, False, True, False, True]
    assert "cannot fetch s3://pictures/images/a/2.png" in batch.errors[1]


@pytest.mark.parametrize("url", ["s3://nowhere/images", "s3://nowhere/images/", "s3://nowhere/x.zip"])
def test_a_bucket_that_is_not_there(bucket, url):
    with pytest.raises(InputError, match=r"s3://nowhere/(images: no such object|images/: .*bucket does not|x\.zip: )"):
        open_source([url])


def test_without_s3fs_the_error_names_it(tmp_path):
    code = "import sys; sys.modules['s3fs'] = None; from gradscore import open_source; open_source(['s3://a/b/'])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert "pip install s3fs" in done.stderr.splitlines()[-1]
