"""Resizing and cropping as torchvision does them, and how a model gets these options."""

import io
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gradscore import InputError, ModelError, Scorer, ScoreTable, export_classifier, prepare
from gradscore.cli import app
from gradscore.exporting.huggingface import _preprocessing
from gradscore.inputs.images import decode, pixels
from gradscore.model.preprocessing import PREPROCESSING_KEY, ImageOptions, InputTensor, Preprocessing
from gradscore.preparing.inspection import inspect_model

IMAGE = (InputTensor("x", (None, 3, 12, 16)),)


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def of_torchvision(array, resize, crop, mode):
    """Return grey levels after Resize and CenterCrop as documented, by torch's antialiased interpolation."""
    height, width = array.shape[:2]
    if len(resize) == 1:  # the shorter side
        ratio = max(height, width) / min(height, width)
        long = int(resize[0] * max(height, width) / min(height, width)) if ratio > 1 else resize[0]
        size = (long, resize[0]) if height > width else (resize[0], long)
    else:
        size = resize or (height, width)
    image = torch.from_numpy(array).permute(2, 0, 1)[None]  # uint8: rounded after each axis, as Pillow does
    image = torch.nn.functional.interpolate(image, size, mode=mode, antialias=True).double()
    if crop is None:
        return image[0].numpy()
    pads = [max(0, wanted - given) for wanted, given in zip(crop, size, strict=True)]
    image = torch.nn.functional.pad(
        image, (pads[1] // 2, (pads[1] + 1) // 2, pads[0] // 2, (pads[0] + 1) // 2)
    )  # as in CenterCrop: the odd pixel goes right and below
    top, left = (round((have - wanted) / 2.0) for have, wanted in zip(image.shape[2:], crop, strict=True))
    return image[0, :, top : top + crop[0], left : left + crop[1]].numpy()


def noise(height, width, seed):
    """Return grey levels in a middle range, because overshoot makes bicubic results depend on the first axis."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=np.int64)
    return np.clip(smooth + rng.integers(-60, 60, (height, width, 3)), 60, 195).astype(np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(3, 70), width=st.integers(3, 70), seed=st.integers(0, 99),
    resize=st.sampled_from([(), (16,), (17,), (19, 23)]), mode=st.sampled_from(["bilinear", "bicubic"]),
)  # fmt: skip
def test_crops_are_torchvisions_within_one_grey_level(height, width, seed, resize, mode):
    array = noise(height, width, seed)
    found = pixels(png(array), Preprocessing("image", 3, 12, 16, resize=resize, crop="center", interpolation=mode))
    wanted = of_torchvision(array, resize, (12, 16), mode)
    assert found.shape == (3, 12, 16)
    assert np.abs(found.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(7, 50), (40, 30), (12, 16), (3, 3)])
def test_stretching_is_torchvisions_within_one_grey_level(size, mode):
    array = noise(*size, 1)
    found = pixels(png(array), Preprocessing("image", 3, 12, 16, interpolation=mode))
    assert np.abs(found.astype(int) - of_torchvision(array, (12, 16), None, mode)).max() <= 1


def test_nearest_takes_pixels_as_they_are():
    array = noise(24, 48, 2)
    found = pixels(png(array), Preprocessing("image", 3, 12, 16, interpolation="nearest"))
    np.testing.assert_array_equal(found, array[1::2, 1::3].transpose(2, 0, 1))


def test_lanczos_rings_where_bilinear_does_not():
    step = np.zeros((60, 80, 3), np.uint8)
    step[:, 41:] = 200
    sharp, soft = (
        pixels(png(step), Preprocessing("image", 3, 12, 16, interpolation=how)) for how in ("lanczos", "bilinear")
    )
    assert sharp.max() > 200 == soft.max()


def test_the_whole_way_equals_torchvisions_numbers():
    array = noise(50, 33, 4)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    how = Preprocessing("image", 3, 12, 16, 1 / 255, mean, std, resize=(20,), crop="center")
    levels = of_torchvision(array, (20,), (12, 16), "bilinear") / 255
    wanted = (levels - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(decode(png(array), how), wanted, atol=1.01 / 255 / min(std))


def test_a_thin_image_is_refused_before_it_grows_huge():
    with pytest.raises(InputError, match=r"20480000×1024 pixels once resized; the limit is"):
        pixels(
            png(np.zeros((1, 20_000, 3), np.uint8)), Preprocessing("image", 3, 12, 16, resize=(1024,), crop="center")
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": "left"}, "--crop is 'left': it takes none, center"),
        ({"interpolation": "box"}, "--interpolation is 'box': it takes bilinear, bicubic, lanczos, nearest"),
        ({"resize": (20,)}, "--resize 20 does not make the model's 12x16: add --crop center"),
        ({"resize": (16, 12)}, "--resize 16x12 does not make the model's 12x16"),
        ({"resize": (15,), "crop": "center"}, "--resize 15 is less than the model's 12x16, which --crop center cuts out"),
        ({"resize": (1, 2, 3)}, "--resize is 1x2x3: give the shorter side"),
        ({"resize": (0,)}, "--resize is 0: give the shorter side"),
    ],
)  # fmt: skip
def test_impossible_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        ImageOptions().changed(**options).of_model(IMAGE)


def test_options_of_a_model():
    assert ImageOptions().of_model(IMAGE) == Preprocessing("image", 3, 12, 16)
    assert ImageOptions().of_model((InputTensor("x", (None, 7)),)) == Preprocessing()
    assert ImageOptions().of_model((InputTensor("x", (None, 3, None, 16)),)) == Preprocessing()
    found = ImageOptions(resize=[16], crop="center", interpolation="bicubic").of_model(IMAGE)
    assert found == Preprocessing("image", 3, 12, 16, resize=(16,), crop="center", interpolation="bicubic")
    with pytest.raises(ModelError, match=r"gradscore\.preprocessing cannot be read"):
        ImageOptions.from_properties({PREPROCESSING_KEY: '{"sharpen": 1}'})


IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "rescale_factor": 1 / 255}


@pytest.mark.parametrize(
    ("processor", "options"),
    [
        ({}, {}),
        (
            {"do_resize": True, "size": {"height": 12, "width": 16}, "resample": 3, **IMAGENET},
            {"resize": (12, 16), "interpolation": "bicubic", "mean": IMAGENET["image_mean"], "std": IMAGENET["image_std"]},
        ),
        (
            {"size": {"shortest_edge": 20}, "do_center_crop": True, "crop_size": {"height": 12, "width": 16}, "resample": 2},
            {"resize": (20,), "crop": "center"},
        ),
        ({"size": {"shortest_edge": 14}, "crop_pct": 0.875}, {"resize": (16,), "crop": "center"}),
        ({"size": {"shortest_edge": 384}, "crop_pct": 1.0}, {"resize": (384, 384)}),
        ({"size": 16, "do_normalize": False, "image_mean": [9], "do_rescale": False}, {"resize": (16, 16), "scale": 1.0}),
        ({"size": {"longest_edge": 16}}, {}),
        ({"do_resize": False, "size": 3}, {}),
    ],
)  # fmt: skip
def test_image_processors_of_hugging_face(processor, options):
    assert _preprocessing(processor) == ImageOptions().changed(**options)


def test_an_unknown_filter_is_refused():
    with pytest.raises(InputError, match="filter 4"):
        _preprocessing({"resample": 4})


def test_an_exported_classifier_carries_its_preprocessing(tmp_path):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(560, 5))
    options = ImageOptions(mean=(0.5,), std=(0.25,), resize=(20,), crop="center")
    export_classifier(module.eval(), torch.zeros(2, 3, 12, 16), tmp_path / "c.onnx", preprocessing=options)
    kept = prepare(tmp_path / "c.onnx", tmp_path / "kept.onnx").preprocessing
    assert (kept.mean, kept.std, kept.resize, kept.crop) == ((0.5,), (0.25,), (20,), "center")
    changed = prepare(tmp_path / "c.onnx", tmp_path / "s.onnx", std=(0.5,), resize=(24,), interpolation="bicubic")
    with Scorer.load(tmp_path / "s.onnx") as scorer:
        assert scorer.metadata.preprocessing == changed.preprocessing
        image = noise(40, 50, 3)
        scores = scorer.score([png(image)])
        wanted = torch.from_numpy(of_torchvision(image, (24,), (12, 16), "bicubic") / 255 - 0.5)[None].float() / 0.5
        np.testing.assert_allclose(scores.max_softmax, module(wanted).softmax(1).max().item(), rtol=0.05)
    (tmp_path / "one.png").write_bytes(png(image))
    table = tmp_path / "t.parquet"
    flags = ["--resize", "24x30", "--crop", "center", "--interpolation", "nearest", "--overwrite"]
    app(["prepare", str(tmp_path / "c.onnx"), "-o", str(tmp_path / "k.onnx"), *flags], standalone_mode=False)
    app(["score", str(tmp_path / "k.onnx"), str(tmp_path / "one.png"), "-o", str(table), "--precision", "float32"],
        standalone_mode=False)  # fmt: skip
    with Scorer.load(tmp_path / "k.onnx") as scorer:
        wanted = Preprocessing("image", 3, 12, 16, 1 / 255, (0.5,), (0.25,), "strict", (24, 30), "center", "nearest")
        assert scorer.metadata.preprocessing == wanted
        np.testing.assert_array_equal(
            ScoreTable.read(table).features(), scorer.score([png(image)]).features.astype(np.float32)
        )
    text = json.dumps(inspect_model(tmp_path / "s.onnx"), ensure_ascii=False)
    assert "3×12×16 images, resize 24, crop center, bicubic" in text
