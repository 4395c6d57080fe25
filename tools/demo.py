"""The demo: train a small CNN on handwritten digits, and get a verdict on each prediction.

Usage: python -m tools.demo FOLDER. Everything is written to FOLDER. An existing FOLDER is deleted first.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from models.digits_cnn import DigitsCNN

SEED = 0
TRAINING = 400
FITTING = 700
NOISE = 300
SHAPES = 300
EPOCHS = 12
GRADSCORE = Path(sys.executable).with_name("gradscore")


def main() -> None:
    """Run every step, and print the commands that a user would type."""
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    images, labels = _digits()
    print(f"1,797 handwritten digits, {2 * NOISE} noise images and {SHAPES} shapes -> {folder}/images")
    _write(folder / "images/fit", images[TRAINING : TRAINING + FITTING], labels[TRAINING : TRAINING + FITTING])
    _write(folder / "images/test", images[TRAINING + FITTING :], labels[TRAINING + FITTING :])
    noise = np.random.default_rng(SEED).integers(0, 256, (2 * NOISE, 8, 8), dtype=np.uint8)
    _write(folder / "images/noise-fit", noise[:NOISE])
    _write(folder / "images/noise-test", noise[NOISE:])
    _write(folder / "images/shapes-test", _shapes(SHAPES, np.random.default_rng(SEED)))
    print(f"training a CNN on {TRAINING} of them -> {folder}/weights.pt")
    _train(images[:TRAINING], labels[:TRAINING], folder / "weights.pt")

    classes = ",".join("0123456789")
    _gradscore("builder", "install")
    _gradscore(
        "export", "models.digits_cnn:DigitsCNN", "--weights", folder / "weights.pt", "--input-shape", "1x8x8",
        "--class-names", classes, "-o", folder / "classifier.onnx",
    )  # fmt: skip
    _gradscore("prepare", folder / "classifier.onnx", "-o", folder / "scoring.onnx")
    for name in ("fit", "test", "noise-fit", "noise-test", "shapes-test"):
        _gradscore(
            "score", folder / "scoring.onnx", folder / "images" / name, "--features", "recommended", "-o", folder / f"{name}.parquet",
        )  # fmt: skip
    _gradscore(
        "fit", folder / "fit.parquet", "--model", folder / "scoring.onnx", "--known", folder / "images/fit", "-o", folder / "verdict.onnx",
    )  # fmt: skip
    _gradscore(
        "apply", folder / "test.parquet", "--verdict", folder / "verdict.onnx", "-o", folder / "verdicts.parquet"
    )
    _gradscore(
        "evaluate", folder / "test.parquet", "--unknown", folder / "shapes-test.parquet", "--verdict", folder / "verdict.onnx",
    )  # fmt: skip
    _show_what_next(folder)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.images))
    pixels = np.round(digits.images[order] * (255 / 16)).astype(np.uint8)
    return pixels, digits.target[order]


def _shapes(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw stripes, checks, squares and crosses of random size, place and brightness: nothing like a digit."""
    rows, columns = np.mgrid[:8, :8]
    images = []
    for kind in rng.integers(0, 4, count).tolist():
        width, (row, column) = int(rng.integers(1, 4)), rng.integers(2, 6, 2)
        masks = (
            (rows + column) // width % 2 == 0,
            (rows // width + columns // width) % 2 == 0,
            np.maximum(abs(rows - row), abs(columns - column)) <= width,
            (rows == row) | (columns == column),
        )
        images.append(masks[kind] * rng.integers(120, 256) + rng.integers(0, 40, (8, 8)) // 2)
    return np.clip(np.stack(images), 0, 255).astype(np.uint8)


def _write(folder: Path, images: np.ndarray, labels: np.ndarray | None = None) -> None:
    for index, pixels in enumerate(images):
        place = folder if labels is None else folder / str(labels[index])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{index:04d}.png")


def _train(images: np.ndarray, labels: np.ndarray, weights: Path) -> None:
    torch.manual_seed(SEED)
    model = DigitsCNN()
    inputs = torch.from_numpy(images[:, None].astype(np.float32) / 255)
    targets = torch.from_numpy(labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(inputs)).split(32):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs[rows]), targets[rows]).backward()
            optimizer.step()
    torch.save(model.state_dict(), weights)


def _gradscore(*arguments: str | Path) -> None:
    print("\n$ gradscore", *arguments, flush=True)
    subprocess.run([GRADSCORE, *map(str, arguments)], check=True, cwd=Path(__file__).parent.parent)


def _show_what_next(folder: Path) -> None:
    print("\nWritten:")
    for name in ("classifier.onnx", "scoring.onnx", "test.parquet", "verdict.onnx", "verdicts.parquet"):
        print(f"  {folder / name}")
    print(
        f"\nNext, in your shell:\n"
        f"  source .venv/bin/activate\n"
        f"  gradscore inspect {folder}/scoring.onnx\n"
        f"  python -c \"import pyarrow.parquet as pq; print(pq.read_table('{folder}/verdicts.parquet').to_pandas())\"\n"
        f"  gradscore prepare YOUR_CLASSIFIER.onnx -o scoring.onnx --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225\n"
        f"  gradscore score scoring.onnx YOUR_IMAGES/ --features recommended -o scores.parquet"
    )


if __name__ == "__main__":
    main()
