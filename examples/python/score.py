"""Predictions with P(correct) from one self-scoring model, with onnxruntime and NumPy but without gradscore.

Usage: python score.py self_scoring.onnx inputs.npy

inputs.npy holds a batch: uint8 pixels [B, C, H, W], which are normalised as the model's metadata says, or numbers that
the model takes unchanged. The program prints one JSON object per row.
"""

import json
import math
import sys
from typing import Any

import numpy as np
import onnxruntime


def main() -> None:
    """Read the arguments, run the model once and print its rows."""
    model, inputs = sys.argv[1:]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["gradscore"])
    added = about["added"]  # maps each value of a prediction to the output that holds it
    batch = prepared(np.load(inputs, allow_pickle=False), about["preprocessing"], about["inputs"][0]["dtype"])
    columns = session.run(list(added.values()), {about["inputs"][0]["name"]: batch})
    for values in zip(*columns, strict=True):
        print(json.dumps(row_of(dict(zip(added, values, strict=True)), about)))


def prepared(batch: np.ndarray, preprocessing: dict[str, Any], dtype: str) -> np.ndarray:
    """Normalise uint8 pixels [B, C, H, W] as the metadata says, and return other numbers unchanged."""
    if batch.dtype == np.uint8:
        mean, std = (np.float32(preprocessing[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
        batch = (batch.astype(np.float32) * np.float32(preprocessing["scale"]) - mean) / std
    return batch.astype(dtype)


def row_of(values: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """Return the values of one prediction for JSON, with features by name."""
    row = {name: plain(value) for name, value in values.items() if name != "features"}
    if "features" in values:
        row["features"] = dict(zip(about["feature_names"], map(plain, values["features"]), strict=True))
    return row | {"label_name": about["class_names"][row["label"]] if about["class_names"] else str(row["label"])}


def plain(value: Any) -> Any:
    """Return a NumPy number for JSON: NaN and infinity become None."""
    number = value.item()
    return None if isinstance(number, float) and not math.isfinite(number) else number


if __name__ == "__main__":
    main()
