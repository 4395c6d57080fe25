"""Each detector's formula once more, as plainly as can be: one sample at a time, from the papers, in float64."""

from functools import cache, wraps

import numpy as np
from scipy.special import logsumexp, softmax
from scipy.stats import weibull_min
from sklearn.covariance import ledoit_wolf


def once(function):
    """Compute what depends on the known rows once, and not again for each sample."""
    found = {}

    @wraps(function)
    def remembered(*given):
        key = tuple(one if isinstance(one, (int, float)) else id(one) for one in given)
        if key not in found:
            found[key] = given, function(*given)
        return found[key][1]

    return remembered


def cross_entropy_seed(z, y):
    """Return u, the gradient of −log p_y by the logits over its residual."""
    seed = softmax(np.delete(z, y))
    return np.insert(seed, y, -1.0)


def energy(z, t=1.0):
    return t * logsumexp(z / t)


def gradient(delta, a):
    return np.outer(delta, a)


def kept(a, percentile):
    """Return the places that stay: the largest numbers, of equal ones the first."""
    count = max(1, len(a) - round(len(a) * percentile))
    return np.lexsort((np.arange(len(a)), -a))[:count]


def shaped(how, percentile):
    def confidence(z, y, a, world, pooled):
        places, out = kept(a, percentile), np.zeros_like(a)
        ratio = a.sum() / a[places].sum() if a[places].sum() else 0.0
        if how == "p":
            out[places] = a[places]
        elif how == "b":
            out[places] = a.sum() / len(places)
        elif how == "s":
            out[places] = a[places] * np.exp(ratio)
        else:
            out = a * np.exp(ratio)
        return energy(world.head.weight @ out + world.head.bias)

    return confidence


@once
def gaussians(x, label):
    """Return the class means and the inverse of their shrunk covariance, by scikit-learn."""
    present = np.unique(label)
    means = {c: x[label == c].mean(axis=0) for c in present}
    centred = np.stack([row - means[c] for row, c in zip(x, label, strict=True)])
    return list(means.values()), np.linalg.inv(ledoit_wolf(centred, assume_centered=True)[0])


def mahalanobis(x, known, label):
    means, inverse = gaussians(known, label)
    return min((x - mean) @ inverse @ (x - mean) for mean in means)


def unit(x):
    return x / max(np.linalg.norm(x), 1e-12)


@once
def units(x):
    return np.stack([unit(row) for row in x])


def knn(z, y, a, world, pooled):
    distances = sorted(np.linalg.norm(unit(a) - row) for row in units(world.known.vector))
    return -distances[min(10, len(distances)) - 1]


@once
def nothing(label):
    return 0 * label


def relative(z, y, a, world, pooled):
    vectors, label = world.known.vector, world.known.label
    return mahalanobis(a, vectors, nothing(label)) - mahalanobis(a, vectors, label)


@once
def top_directions(x, count):
    return np.linalg.svd(x, full_matrices=False)[2][:count].T


@once
def directions_with(x, share):
    values = np.linalg.svd(x, compute_uv=False) ** 2
    count = int(np.argmax(np.cumsum(values) >= share * values.sum() * (1 - 1e-12))) + 1
    return top_directions(x, count)


def vim(z, y, a, world, pooled):
    origin = -np.linalg.pinv(world.head.weight) @ world.head.bias
    directions = np.linalg.svd(world.known.vector - origin)[2]
    outside = directions[len(a) // 2 :].T
    residuals = np.linalg.norm((world.known.vector - origin) @ outside, axis=1)
    alpha = world.known.logits.max(axis=1).mean() / residuals.mean()
    return energy(z) - alpha * np.linalg.norm((a - origin) @ outside)


def neco(z, y, a, world, pooled):
    mean, std = world.known.vector.mean(axis=0), world.known.vector.std(axis=0)
    std = np.where(std > 1e-12, std, 1)
    basis = np.linalg.svd((world.known.vector - mean) / std, full_matrices=False)[2][
        : min(len(z), max(1, len(a) // 2))
    ].T
    x = (a - mean) / std
    return z[y] * np.linalg.norm(x @ basis) / np.linalg.norm(x)


def nnguide(z, y, a, world, pooled):
    bank = [energy(logits) * unit(row) for logits, row in zip(world.known.logits, world.known.vector, strict=True)]
    return energy(z) * np.mean(sorted(unit(a) @ row for row in bank)[-10:])


def fdbd(z, y, a, world, pooled):
    weight = world.head.weight
    others = [c for c in range(len(z)) if c != y]
    distances = [abs(z[y] - z[c]) / np.linalg.norm(weight[y] - weight[c]) for c in others]
    return np.mean(distances) / np.linalg.norm(a - world.known.vector.mean(axis=0))


def openmax(z, y, a, world, pooled):
    order = np.lexsort((np.arange(len(z)), -z))[:10]
    revised, unknown = z.copy(), 0.0
    for rank, c in enumerate(order):
        value = 1.0
        if (world.known.label == c).any():
            logits = world.known.logits[world.known.label == c]
            distances = sorted(np.linalg.norm(row - logits.mean(axis=0)) for row in logits)[-20:]
            if distances[0] == distances[-1]:
                shape, scale = 1e7, 1e4
            else:
                shape, scale = weibull_fit(tuple(np.array(distances) - distances[0] + 1e4))
            value = weibull_min.cdf(np.linalg.norm(z - logits.mean(axis=0)) - distances[0] + 1e4, shape, scale=scale)
        lost = z[c] * value * (len(order) - rank) / len(order)
        revised[c] -= lost
        unknown += lost
    probabilities = softmax([unknown, *revised])
    return np.log(probabilities[1:].sum()) - np.log(probabilities[0])


@cache
def weibull_fit(x):
    """Return shape and scale of largest likelihood, by maximising it over a grid that narrows down."""
    x = np.array(x)
    logs = np.log(x / x.max())

    def likelihood(k):  # of the best scale for this shape
        return np.log(k) - np.log(np.exp(k * logs).mean()) + k * logs.mean()

    low, high = np.log(1.0), np.log(1e7)
    for _ in range(60):
        grid = np.linspace(low, high, 41)
        best = int(np.argmax([likelihood(np.exp(one)) for one in grid]))
        low, high = grid[max(0, best - 1)], grid[min(40, best + 1)]
    k = np.exp((low + high) / 2)
    return k, x.max() * np.exp(k * logs).mean() ** (1 / k)


def expected_gradient(z, y, a, world, pooled):
    p = softmax(z)
    return -sum(p[c] * np.abs(gradient(p - np.eye(len(z))[c], a)).sum() for c in range(len(z)))


def all_ones(z, y, a, world, pooled):
    delta = len(z) * softmax(z) - 1
    return (gradient(delta, a) ** 2).sum() + (delta**2).sum()


def grad_orth(z, y, a, world, pooled):
    basis = directions_with(world.known.vector, 0.95)
    return np.linalg.norm(gradient(softmax(z) - 1 / len(z), a) @ basis)


@once
def mean_factors(world):
    known = world.known
    seeds = np.stack([cross_entropy_seed(z, y) for z, y in zip(known.logits, known.label, strict=True)])
    present = np.unique(known.label)
    return {c: (known.vector[known.label == c].mean(axis=0), seeds[known.label == c].mean(axis=0)) for c in present}


@once
def class_gradients(world):
    """Return orthonormal rows that span the classes' gradients ū āᵀ, each as one long vector."""
    flat = np.stack([unit(gradient(seed, a).ravel()) for a, seed in mean_factors(world).values()])
    _, values, rows = np.linalg.svd(flat, full_matrices=False)
    return rows[values > 1e-5 * values[0]]


def grad_pca(z, y, a, world, pooled):
    whole = gradient(cross_entropy_seed(z, y), a).ravel()
    return np.linalg.norm(class_gradients(world) @ whole) / np.linalg.norm(whole)


def grad_cosine(z, y, a, world, pooled):
    means = mean_factors(world)
    inputs, seeds = means.get(y, [np.mean(one, axis=0) for one in zip(*means.values(), strict=True)])
    whole, usual = gradient(cross_entropy_seed(z, y), a), gradient(seeds, inputs)
    return (whole * usual).sum() / np.linalg.norm(whole) / np.linalg.norm(usual)


@once
def factors(known):
    """Return the inverses of the mean aaᵀ and uuᵀ, shrunk."""
    seeds = np.stack([cross_entropy_seed(row, label) for row, label in zip(known.logits, known.label, strict=True)])
    return [np.linalg.pinv(ledoit_wolf(x, assume_centered=True)[0], hermitian=True) for x in (known.vector, seeds)]


def kfac(z, y, a, world, pooled, unit=False):
    inputs, outputs = factors(world.known)
    seed = cross_entropy_seed(z, y)
    whole = gradient(seed if unit else seed * (1 - softmax(z)[y]), a)
    return -np.sqrt(np.trace(outputs @ whole @ inputs @ whole.T))


def kl_matching(z, y, a, world, pooled):
    p = softmax(z)
    known = softmax(world.known.logits, axis=1)
    means = [known[world.known.label == c].mean(axis=0) for c in np.unique(world.known.label)]
    return -min((p * np.log(p / mean)).sum() for mean in means)


def react(z, y, a, world, pooled):
    limit = np.percentile(world.known.vector, 90)
    return energy(world.head.weight @ np.minimum(a, limit) + world.head.bias)


def dice(z, y, a, world, pooled):
    contribution = world.head.weight * world.known.vector.mean(axis=0)
    weight = np.where(contribution > np.percentile(contribution, 90), world.head.weight, 0)
    return energy(weight @ a + world.head.bias)


def layers(z, y, a, world, pooled):
    known = world.known
    return -sum(mahalanobis(pooled[name], known.pooled[name], known.label) for name in known.pooled)


FORMULAS = {
    "max_softmax": lambda z, y, a, world, pooled: softmax(z)[y] - 1,
    "entropy": lambda z, y, a, world, pooled: (softmax(z) * np.log(softmax(z))).sum(),
    "max_logit": lambda z, y, a, world, pooled: z.max(),
    "energy": lambda z, y, a, world, pooled: energy(z),
    "gen": lambda z, y, a, world, pooled: -((softmax(z) * (1 - softmax(z))) ** 0.1).sum(),
    "kl_matching": kl_matching,
    "openmax": openmax,
    "react": react,
    "ash_p": shaped("p", 0.6),
    "ash_b": shaped("b", 0.65),
    "ash_s": shaped("s", 0.9),
    "scale": shaped("scale", 0.85),
    "dice": dice,
    "knn": knn,
    "mahalanobis": lambda z, y, a, world, pooled: -mahalanobis(a, world.known.vector, world.known.label),
    "mahalanobis_unit": lambda z, y, a, world, pooled: (
        -mahalanobis(unit(a), units(world.known.vector), world.known.label)
    ),
    "mahalanobis_relative": relative,
    "mahalanobis_layers": layers,
    "vim": vim,
    "neco": neco,
    "nnguide": nnguide,
    "fdbd": fdbd,
    "gradnorm": lambda z, y, a, world, pooled: np.abs(gradient(softmax(z) - 1 / len(z), a)).sum(),
    "exgrad": expected_gradient,
    "all_ones": all_ones,
    "grad_orth": grad_orth,
    "grad_pca": grad_pca,
    "grad_cosine": grad_cosine,
    "grad_kfac": kfac,
    "grad_kfac_unit": lambda z, y, a, world, pooled: kfac(z, y, a, world, pooled, unit=True),
}
