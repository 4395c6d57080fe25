"""Scored rows as detectors and verdicts take them."""

import numpy as np

from gradscore.detectors import LastLayer, Observations
from tools.decisions.measured import IntArray, Mask, Measured

VECTORS = ("penultimate", "logits")  # columns that no verdict reads: they are for detectors


def observations(measured: Measured, rows: Mask) -> Observations:
    """Return what detectors read of some rows."""
    groups: dict[str, list[int]] = {}
    for column, name in enumerate(measured.feature_names):
        owner, _, last = name.rpartition(".")
        if last.isdecimal():
            groups.setdefault(owner, []).append(column)
    features = measured.features[rows]
    pooled = {name.removesuffix(".pooled"): features[:, at] for name, at in groups.items() if name.endswith(".pooled")}
    return Observations(features[:, groups["logits"]], measured.label[rows], features[:, groups["penultimate"]], pooled)


def last_layer(measured: Measured) -> LastLayer:
    """Return the dense layer that makes the logits."""
    return LastLayer(measured.head_weight.astype(np.float64), measured.head_bias.astype(np.float64))


def verdict_columns(measured: Measured) -> IntArray:
    """Return the columns that a table for verdicts has."""
    owners = [name.rpartition(".")[0] for name in measured.feature_names]
    return np.flatnonzero([owner not in VECTORS for owner in owners])


def kinds(measured: Measured) -> IntArray:
    """Return the number of each row's kind of synthetic unknown, and −1 for known inputs."""
    return np.where(measured.family("known"), -1, measured.group)
