"""The oracle: torch in float64, one sample at a time, with statistics by scipy and no code of the toolkit."""

import copy

import numpy as np
import torch
from scipy import stats

NORMS = ("l1", "l2", "min", "max", "mean", "std")
SHAPES = ("skewness", "kurtosis")


def layers_of(module):
    """Return the names of the submodules with parameters of their own, in the order in which they run."""
    return [name for name, child in module.named_modules() if any(True for _ in child.parameters(recurse=False))]


def seed(logits):
    """Return p − onehot(ŷ) and the residual 1 − p_ŷ of one row of float64 logits, without cancellation."""
    label = int(logits.argmax())
    others = torch.softmax(logits, 0).clone()
    others[label] = 0
    rest = logits.clone()
    rest[label] = -torch.inf
    residual = torch.sigmoid(torch.logsumexp(rest, 0) - logits[label])
    unit = torch.softmax(rest, 0)
    unit[label] = -1
    return label, unit * residual, float(residual)


def features_of(module, sample):
    """Return label and {feature: value} of one sample; the loss's gradient at the predicted label."""
    double = copy.deepcopy(module).double().eval()
    logits = double(torch.as_tensor(sample)[None].double())[0]
    label, gradient_seed, residual = seed(logits.detach())
    parameters = dict(double.named_parameters())
    gradients = torch.autograd.grad(logits, list(parameters.values()), gradient_seed, allow_unused=True)
    by_name = {
        name: np.zeros(tuple(parameters[name].shape)) if gradient is None else gradient.numpy()
        for name, gradient in zip(parameters, gradients, strict=True)
    }
    features, everything = {}, []
    for layer in layers_of(double):
        own = [value.ravel() for name, value in by_name.items() if name.rpartition(".")[0] == layer]
        features |= {f"{layer}.{key}": value for key, value in statistics(np.concatenate(own)).items()}
        everything += own
    features |= {f"all.{key}": value for key, value in statistics(np.concatenate(everything)).items()}
    margins = (logits - logits[label]).detach().numpy()
    log_p = margins - np.log1p(np.exp(np.delete(margins, label)).sum())
    p = np.exp(log_p)
    entropy = -np.sum(p * log_p) / np.log(len(p))
    return label, features | {"entropy": entropy, "max_softmax": p[label], "residual": residual}


def statistics(gradient):
    """Return the eight statistics of a flat gradient; skewness and kurtosis of a constant are 0."""
    largest = float(np.abs(gradient).max()) or 1.0
    scaled = gradient / largest
    constant = bool(np.ptp(scaled) == 0)
    return {
        "l1": float(np.abs(gradient).sum()),
        "l2": float(np.linalg.norm(scaled)) * largest,
        "min": float(gradient.min()),
        "max": float(gradient.max()),
        "mean": float(gradient.mean()),
        "std": float(scaled.std()) * largest,
        "skewness": 0.0 if constant else float(stats.skew(scaled)),
        "kurtosis": 0.0 if constant else float(stats.kurtosis(scaled)),
    }


def assert_features(actual, expected, *, rtol, context=""):
    """Compare {feature: value}; the scale of a norm-like feature is its layer's L2 per weight, or its own size."""
    assert list(actual) == list(expected), f"{context}: names or order differ"
    for name, wanted in expected.items():
        layer, _, statistic = name.rpartition(".")
        scale = abs(wanted)
        if statistic in ("min", "max", "mean"):
            scale = max(scale, expected[f"{layer}.std"])
        if statistic in SHAPES:
            scale = max(scale, 1.0)
        assert abs(actual[name] - wanted) <= rtol * scale, (
            f"{context} {name}: {actual[name]!r} is not {wanted!r} to {rtol} of {scale}"
        )
