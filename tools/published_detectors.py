"""What a published implementation of the detectors gives on drawn features, to be kept: tests compare with it.

Usage: python -m tools.published_detectors FILE. It needs pytorch-ood (and its torchvision), and does nothing without. The
features are drawn by a seed, so that the file holds results only.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED = 1
KNOWN, NEW, CLASSES, WIDTH, LAYERS = 240, 20, 5, 16, (6, 8)
PASSES = 7

Drawn = Mapping[str, NDArray[Any]]


def main() -> None:
    """Write the file, or say why not."""
    parser = argparse.ArgumentParser(prog="python -m tools.published_detectors")
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    if find_spec("pytorch_ood") is None:
        print("pytorch-ood is not installed: nothing to compare with", file=sys.stderr)
        return
    import pytorch_ood

    with np.errstate(all="ignore"):
        outlier_scores, openmax = published(drawn(SEED))
    found = {"pytorch-ood": pytorch_ood.__version__, "seed": SEED, "outlier_scores": outlier_scores, "openmax": openmax}
    given.file.write_text(json.dumps(found, indent=1) + "\n")


def drawn(seed: int) -> dict[str, NDArray[Any]]:
    """Return the features: known rows around class means after a softplus, and new rows further apart; float32.

    They avoid what implementations settle differently: equal numbers in a vector, of which some stay and others go;
    probabilities below 1e-7, which pytorch-ood raises; classes that no new row is predicted as, for which its OpenMax
    computes no distance.
    """
    rng = np.random.default_rng(seed)
    means = 1.5 * rng.standard_normal((CLASSES, WIDTH))
    known = np.logaddexp(means[rng.integers(0, CLASSES, KNOWN)] + rng.standard_normal((KNOWN, WIDTH)), 0)
    new = np.logaddexp(means[np.arange(NEW) % CLASSES] + 2 * rng.standard_normal((NEW, WIDTH)), 0)
    weight = 0.3 * (means - means.mean(axis=0)) + 0.1 * rng.standard_normal(means.shape)
    bias = 0.1 * rng.standard_normal(CLASSES)
    found = {"weight": weight, "bias": bias, "known": known, "new": new}
    for place, width in enumerate(LAYERS):
        mixing = rng.standard_normal((WIDTH, width))
        for name in ("known", "new"):
            noise = rng.standard_normal((len(found[name]), width))
            found[f"{name}_layer_{place}"] = found[name] @ mixing + noise
    single = {name: one.astype(np.float32) for name, one in found.items()}
    for name in ("known", "new"):
        single[f"{name}_logits"] = single[name] @ single["weight"].T + single["bias"]
    return single


def drawn_passes(seed: int) -> NDArray[np.float64]:
    """Return logits of several passes for the same rows, [T, N, q]."""
    return 2 * np.random.default_rng(seed).standard_normal((PASSES, NEW, CLASSES))


def published(features: Drawn) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return pytorch-ood's outlier scores of the new rows by detector, and OpenMax's fits.

    Where it takes double precision, it gets it.
    """
    import torch
    from pytorch_ood import detector as theirs

    single = {name: torch.from_numpy(one) for name, one in features.items()}
    double = {name: one.double() for name, one in single.items()}
    label = double["known_logits"].argmax(dim=1)

    def head(x: Any) -> Any:
        return x.flatten(1) @ double["weight"].T + double["bias"]

    def fitted(made: Any, part: str = "known", **features: Any) -> list[float]:
        of = features or double
        made.fit_features(of[part], label)
        return numbers(made.predict_features(of[part.replace("known", "new")]))

    linear = torch.nn.Linear(WIDTH, CLASSES)
    linear.load_state_dict({"weight": single["weight"], "bias": single["bias"]})
    in_single = {
        "dice": fitted(theirs.DICE(None, single["weight"], single["bias"], p=0.7), **single),
        "fdbd": fitted(theirs.fDBD(None, linear), **single),
        "nnguide": fitted(theirs.NNGuide(None, lambda x: x @ single["weight"].T + single["bias"], k=10), **single),
        "vim": fitted(theirs.ViM(None, d=6, w=single["weight"], b=single["bias"])),
    }
    torch.set_default_dtype(torch.float64)
    linear = linear.double()
    maps = double["new"][:, :, None, None]
    shapes = {
        name: theirs.ASH(None, head, variant=name.replace("_", "-"), percentile=0.65)
        for name in ("ash_p", "ash_b", "ash_s")
    }
    react = theirs.ReAct(None, head, percentile=0.9).fit_feature_maps(double["known"][:, :, None, None], label)
    layers = theirs.MultiMahalanobis([torch.nn.Identity()] * len(LAYERS))
    layers.fit_structured([double[f"known_layer_{place}"] for place in range(len(LAYERS))], label)
    matching = theirs.KLMatching(None).fit_logits(double["known_logits"], label)
    open_max = theirs.OpenMax(None, tailsize=20, alpha=CLASSES).fit_logits(double["known_logits"], label)
    new = double["new_logits"]
    passes = torch.from_numpy(drawn_passes(SEED))
    return {
        **in_single,
        "passes": numbers(theirs.MCD(recorded(passes), PASSES, "mean").predict(new)),
        "passes_variance": numbers(theirs.MCD(recorded(passes), PASSES, "var").predict(new)),
        "max_softmax": numbers(theirs.MaxSoftmax.score(new)),
        "entropy": numbers(theirs.Entropy.score(new)),
        "max_logit": numbers(theirs.MaxLogit.score(new)),
        "energy": numbers(theirs.EnergyBased.score(new)),
        "energy_3": numbers(theirs.EnergyBased.score(new, t=3.0)),
        "gen": numbers(theirs.GEN.score(new)),
        "gen_3": numbers(theirs.GEN.score(new, M=3)),
        "kl_matching": numbers(matching.predict_logits(new)),
        "openmax": numbers(open_max.predict_logits(new)),
        "react": numbers(react.predict_feature_maps(maps)),
        **{name: numbers(one.predict_feature_maps(maps)) for name, one in shapes.items()},
        "scale": numbers(theirs.SCALE(None, head, percentile=0.65).predict_feature_maps(maps)),
        "knn": fitted(theirs.KNN(None, k=10)),
        "mahalanobis": fitted(theirs.Mahalanobis(None)),
        "mahalanobis_relative": fitted(theirs.RMD(None)),
        "mahalanobis_layers": numbers(
            layers.predict_structured([double[f"new_layer_{place}"] for place in range(len(LAYERS))])
        ),
        "gradnorm": numbers(theirs.GradNorm(linear, param_filter=lambda name: name == "weight").to("cpu").predict(double["new"])),
        "all_ones": numbers(theirs.GradUncertainty(linear).to("cpu").predict(double["new"])),
    }, tails(open_max)  # fmt: skip


def recorded(passes: Any) -> Any:
    """Return a module that answers with one pass after the other."""
    import torch

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, _: Any) -> Any:
            self.calls += 1
            return passes[self.calls - 1]

    return Model()


def tails(open_max: Any) -> dict[str, list[float]]:
    """Return the Weibull distributions that OpenMax fitted, by class."""
    models = [one for _, one in sorted(open_max._openmax.distributions.items())]  # no public name
    read: dict[str, Callable[[Any], float]] = {
        "start": lambda one: one.min_val, "shape": lambda one: one.c, "scale": lambda one: one.scale,
    }  # fmt: skip
    return {name: [float(of(one)) for one in models] for name, of in read.items()}


def numbers(scores: Any) -> list[float]:
    """Return a tensor as a list."""
    return [float(one) for one in scores.detach().double()]


if __name__ == "__main__":
    main()
