"""Synthetic unknown concepts: what each kind keeps and loses, and how a scorer scores them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from gradscore import Scorer, open_source
from gradscore.errors import InputError
from gradscore.inputs.sources import Source
from gradscore.model.metadata import ModelMetadata
from gradscore.model.preprocessing import InputTensor, Preprocessing
from gradscore.unknowns.kinds import KINDS
from gradscore.unknowns.synthesis import kinds_for, read_known, score_unknowns, synthesise
from models.digits_cnn import DigitsCNN


def model(shape, image=True, dtype="float32", **preprocessing):
    settings = Preprocessing("image", shape[0], *shape[1:], **preprocessing) if image else Preprocessing()
    inputs = (InputTensor("x", (None, *shape), dtype),)
    return ModelMetadata(
        source_sha256="", inputs=inputs, logits="z", classes=2, layers=(), preprocessing=settings
    )  # fmt: skip


PHOTO = model((3, 16, 12), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
TABLE = model((20,), image=False)
TEXT = model((12,), image=False, dtype="int64")


@pytest.fixture
def photos(rng):
    """Smooth colour gradients, light and dark."""
    rows, columns = np.mgrid[0:16, 0:12]
    base = 40 + 6 * rows + 4 * columns
    tint = rng.integers(-30, 30, (40, 3, 1, 1))
    return np.clip(base + tint, 0, 255).astype(np.uint8), np.arange(40) % 3


def made(kind, photos, count=30, seed=0):
    known, labels = photos
    return synthesise(kind, count, PHOTO, known=known, labels=labels, seed=seed)


def test_every_kind_suits_some_model():
    assert set(KINDS) == {*kinds_for(PHOTO), *kinds_for(TABLE), *kinds_for(TEXT)}
    assert kinds_for(TEXT) == ("tokens", "shuffle", "splice")
    assert set(kinds_for(TABLE)) - set(kinds_for(PHOTO)) == {"marginals"}
    assert set(kinds_for(PHOTO)) - set(kinds_for(TABLE)) == {"patches", "blur"}


@pytest.mark.parametrize("kind", kinds_for(PHOTO))
def test_every_kind_gives_pixels_that_its_seed_decides(kind, photos):
    images = made(kind, photos)
    assert (images.shape, images.dtype) == ((30, 3, 16, 12), np.uint8)
    np.testing.assert_array_equal(images, made(kind, photos))
    assert not np.array_equal(images, made(kind, photos, seed=1))
    assert len(np.unique(images.reshape(30, -1), axis=0)) > 20
    assert len(made(kind, photos, count=97)) == 97


def test_noise_needs_no_known_inputs():
    uniform, normal = (synthesise(kind, 200, PHOTO).astype(float) for kind in ("uniform", "normal"))
    assert (uniform.min(), uniform.max()) == (0, 255)
    assert np.histogram(uniform, bins=8, range=(0, 256))[0].std() < 0.02 * uniform.size / 8
    assert normal.mean() == pytest.approx(127.5, abs=1)
    assert normal.std() == pytest.approx(63.75, rel=0.05)


def test_normal_noise_has_the_moments_of_known_inputs(photos):
    known = photos[0] // 4
    noise = synthesise("normal", 300, PHOTO, known=known)
    for channel in range(3):
        assert noise[:, channel].mean() == pytest.approx(known[:, channel].mean(), abs=0.5)
        assert noise[:, channel].std() == pytest.approx(known[:, channel].std(), rel=0.05)


def matching(images, known, key):
    """Return for each image the known inputs that agree with it in `key`."""
    keys = [key(one) for one in known]
    return [[i for i, other in enumerate(keys) if np.array_equal(key(one), other)] for one in images]


def test_permutation_moves_whole_pixels(photos):
    images, known = made("permutation", photos), photos[0]

    def pixels(image):
        return np.array(sorted(image.reshape(3, -1).T.tolist()))

    found = matching(images, known, pixels)
    assert all(found)
    moved = [np.mean(image != known[one[0]]) for image, one in zip(images, found, strict=True)]
    assert min(moved) > 0.8


def test_patches_keep_their_inside(photos):
    images, known = made("patches", photos), photos[0]

    def patches(image):
        cut = image.reshape(3, 4, 4, 4, 3).transpose(1, 3, 0, 2, 4).reshape(16, -1)
        return np.array(sorted(cut.tolist()))

    found = matching(images, known, patches)
    assert all(found)
    assert not any(np.array_equal(image, known[one[0]]) for image, one in zip(images, found, strict=True))


def test_patches_of_odd_sizes():
    for shape in ((1, 3, 3), (1, 9, 30), (1, 1, 1)):
        known = np.arange(2 * np.prod(shape), dtype=np.uint8).reshape(2, *shape)
        images = synthesise("patches", 10, model(shape), known=known)
        pools = [sorted(one.ravel().tolist()) for one in known]
        assert all(sorted(image.ravel().tolist()) in pools for image in images)


def test_blur_keeps_lightness_and_loses_edges():
    board = (np.indices((16, 12)).sum(axis=0) % 2 * 255).astype(np.uint8)
    known = np.broadcast_to(board, (5, 3, 16, 12))
    blurred = synthesise("blur", 5, PHOTO, known=known).astype(float)
    assert np.abs(np.diff(known.astype(float), axis=3)).mean() == 255
    assert np.abs(np.diff(blurred, axis=3)).mean() < 20
    assert blurred.mean() == pytest.approx(127.5, abs=2)
    flat = synthesise("blur", 5, PHOTO, known=np.full((5, 3, 16, 12), 90, np.uint8))
    assert (flat == 90).all()


def test_inversion_twice_is_nothing(photos):
    inverted = made("inversion", photos, count=40)
    originals = {one.tobytes() for one in photos[0]}
    assert {(255 - one).tobytes() for one in inverted} == originals


def test_mixup_mixes_two_classes():
    known = np.zeros((6, 3, 16, 12), np.uint8)
    known[:, 0, 0, 0] = 10 * np.array([1, 2, 4, 8, 16, 20])
    labels = np.array([0, 0, 0, 1, 1, 2])
    sums = {
        round(known[i, 0, 0, 0] / 2 + known[j, 0, 0, 0] / 2)
        for i in range(6)
        for j in range(6)
        if labels[i] != labels[j]
    }
    mixed = synthesise("mixup", 300, PHOTO, known=known, labels=labels)
    assert set(mixed[:, 0, 0, 0].tolist()) == sums
    with pytest.raises(InputError, match="at least two predicted classes"):
        synthesise("mixup", 3, PHOTO, known=known, labels=np.zeros(6, int))


def test_arrays_keep_their_own_scale(rng):
    known = (rng.normal(size=(200, 20)) * np.logspace(-3, 3, 20) + 7).astype(np.float32)
    normal = synthesise("normal", 500, TABLE, known=known)
    assert normal.dtype == np.float32
    np.testing.assert_allclose(normal.std(axis=0), known.std(axis=0), rtol=0.2)
    assert (normal <= known.max(axis=0)).all()
    uniform = synthesise("uniform", 500, TABLE)
    assert uniform.std() == pytest.approx(1, rel=0.02)
    permuted = synthesise("permutation", 50, TABLE, known=known)
    pools = {np.sort(one).tobytes() for one in known}
    assert all(np.sort(one).tobytes() in pools for one in permuted)


def test_marginals_keep_columns_and_nothing_between_them(rng):
    known = (rng.normal(size=(400, 1)) + np.arange(20)).astype(np.float32)  # all columns move together
    made = synthesise("marginals", 400, TABLE, known=known)
    assert made.dtype == np.float32
    assert all(np.isin(made[:, column], known[:, column]).all() for column in range(20))
    assert np.corrcoef(known.T).min() > 0.99
    assert np.abs(np.corrcoef(made.T) - np.eye(20)).max() < 0.25


@pytest.fixture
def texts(rng):
    """Ids between a mark at the start and zeros at the end; the predicted class decides whether ids are even or odd."""
    labels = np.arange(30) % 2
    ids = 10 + 2 * rng.integers(0, 40, (30, 12)) + labels[:, None]
    ids[:, 0], ids[:, 9:] = 1, 0
    return ids, labels


@pytest.mark.parametrize("kind", kinds_for(TEXT))
@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_ids_keep_their_marks_and_their_length(kind, dtype, texts):
    made = [synthesise(kind, 50, model((12,), image=False, dtype=dtype), known=texts[0], labels=texts[1]) for _ in "ab"]
    np.testing.assert_array_equal(*made)
    assert made[0].dtype == np.dtype(dtype)
    assert (made[0][:, 0] == 1).all()
    assert (made[0][:, 9:] == 0).all()
    assert np.isin(made[0][:, 1:9], texts[0][:, 1:9]).all()
    assert len(np.unique(made[0], axis=0)) > 25


def test_tokens_forget_their_text_and_a_shuffle_keeps_its_words(texts):
    known, labels = texts
    pools = {np.sort(one).tobytes() for one in known}
    shuffled = synthesise("shuffle", 50, TEXT, known=known)
    assert all(np.sort(one).tobytes() in pools for one in shuffled)
    assert {one.tobytes() for one in shuffled}.isdisjoint(one.tobytes() for one in known)
    drawn = synthesise("tokens", 200, TEXT, known=known)[:, 1:9]
    assert abs((drawn % 2).mean() - 0.5) < 0.05
    assert labels.mean() == 0.5


def test_a_splice_has_halves_of_two_classes(texts):
    spliced = synthesise("splice", 60, TEXT, known=texts[0], labels=texts[1])
    first, second = spliced[:, 1:5] % 2, spliced[:, 5:9] % 2
    assert (first == first[:, :1]).all()
    assert (second == 1 - first[:, :1]).all()
    with pytest.raises(InputError, match="splice needs known inputs of at least two predicted classes"):
        synthesise("splice", 3, TEXT, known=texts[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("noise", 3, PHOTO), "unknown kind 'noise'; choose one of: uniform, normal, perm"),
        (("uniform", 0, PHOTO), "give a positive number"),
        (("blur", 3, PHOTO), "blur is made from inputs of known classes: give some with --known"),
        (("uniform", 3, model((None, 8), image=False)), "extents that vary: give inputs with --known"),
        (
            ("uniform", 3, TEXT),
            "made of pixels or numbers, and this model takes ids: choose one of tokens, shuffle, splice",
        ),
        (("tokens", 3, TEXT), "tokens is made from inputs of known classes"),
        (("uniform", 3, model((8,), image=False, dtype="bool")), r"one of ids; this one takes x bool \[None, 8\]"),
    ],
)
def test_what_cannot_be_made(arguments, message):
    with pytest.raises(InputError, match=message):
        synthesise(*arguments)


def test_known_inputs_that_do_not_fit():
    with pytest.raises(InputError, match=r"shape \[5\] do not fit the model's \[20\]"):
        synthesise("normal", 3, TABLE, known=np.zeros((4, 5), np.float32))
    with pytest.raises(InputError, match="patches is made of pixels, and this model takes numbers"):
        synthesise("patches", 3, TABLE, known=np.zeros((4, 20), np.float32))
    varying = model((None, 8), image=False)
    assert synthesise("uniform", 2, varying, known=np.ones((4, 5, 8), np.float32)).shape == (2, 5, 8)


def test_known_images_are_read_back_as_pixels(tmp_path, rng):
    pixels = rng.integers(0, 256, (6, 16, 12, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    known = read_known(open_source([tmp_path]), PHOTO)
    assert known.unreadable == 1
    np.testing.assert_array_equal(known.inputs, pixels.transpose(0, 3, 1, 2))
    with pytest.raises(InputError, match=r"none of 1 known inputs can be read; the first: .*broken\.png"):
        read_known(open_source([tmp_path / "broken.png"]), PHOTO)


def test_many_known_inputs_are_sampled(monkeypatch):
    monkeypatch.setattr("gradscore.unknowns.synthesis.MOST_KNOWN", 10)

    entries = [SimpleNamespace(id=str(i), read=lambda _, i=i: np.full(20, i, np.float32)) for i in range(100)]
    source = Source(entries)
    drawn = read_known(source, TABLE, seed=1).inputs[:, 0]
    assert len(drawn) == 10
    assert (np.diff(drawn) > 0).all()
    assert drawn.max() > 20


def test_a_scorer_takes_them_in_one_step(prepared, rng):
    torch.manual_seed(0)
    scorer = Scorer.load(prepared("digits-unknowns", DigitsCNN().eval(), torch.zeros(2, 1, 8, 8)))
    known = rng.integers(0, 256, (50, 1, 8, 8), dtype=np.uint8)
    for kind in ("uniform", "mixup"):
        table = score_unknowns(scorer, kind, 20, known=known, seed=3)
        assert table.ids()[:2] == [f"{kind}#0", f"{kind}#1"]
        assert table.model_fingerprint == scorer.fingerprint
        labels = scorer.score(known).label
        again = scorer.score(synthesise(kind, 20, scorer.metadata, known=known, labels=labels, seed=3))
        np.testing.assert_array_equal(table.features(), again.features)
        np.testing.assert_array_equal(table.labels(), again.label)
