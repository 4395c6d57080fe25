"""Other implementations of per-sample gradient statistics: each returns a function that processes one batch.

All use the loss −log p at the predicted label, eval mode and float32. They reduce gradients to the same eight
statistics by `statistics_of`, except gradient-metrics, which has six statistics of its own.
"""

import warnings
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import gradscore_kernels as kernels
import numpy as np
from numpy.typing import NDArray

from gradscore.bench.timing import Task
from gradscore.bench.workloads import Workload

if TYPE_CHECKING:
    import torch

# torch is optional and heavy, so each function imports it when it runs.
# ruff: noqa: PLC0415


def statistics_of(gradients: Iterable[tuple[str, "torch.Tensor"]]) -> NDArray[np.float64]:
    """Return the eight statistics of each layer and of all layers, [B, 8·(layers + 1)]."""
    layers: dict[str, list[torch.Tensor]] = {}
    for name, gradient in gradients:
        layers.setdefault(name.rpartition(".")[0], []).append(gradient.flatten(1))
    accumulators = [_accumulators(parts) for parts in layers.values()]
    accumulators.append(kernels.merge(accumulators))
    return np.concatenate([kernels.statistics(part) for part in accumulators], axis=1)


def _accumulators(parts: Sequence["torch.Tensor"]) -> NDArray[np.float64]:
    """Return the accumulators of each row of a layer's gradients, in two vectorised passes.

    These are n, Σ|g|, mean, M2, M3, M4, min and max.
    """
    import torch

    g = parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)
    mean = g.mean(1)
    centred = g - mean[:, None]
    square = centred * centred
    low, high = g.aminmax(dim=1)
    sums = [square.sum(1), (square * centred).sum(1), (square * square).sum(1)]
    rows = torch.stack([torch.full_like(mean, g.shape[1]), g.abs().sum(1), mean, *sums, low, high], 1)
    accumulators: NDArray[np.float64] = rows.double().cpu().numpy()
    return accumulators


def forward_and_backward(workload: Workload) -> Task:
    """Start forward and backward of an ordinary training step, without per-sample gradients and statistics."""
    import torch

    module, batch = workload.module, torch.as_tensor(workload.batch)
    parameters = list(module.parameters())
    return lambda: torch.autograd.grad(_losses(module(batch)).sum(), parameters)


def by_vmap(workload: Workload) -> Task:
    """Start `vmap` of `grad` from torch.func."""
    import torch
    from torch.func import functional_call, grad, vmap

    module, batch = workload.module, torch.as_tensor(workload.batch)
    parameters = {name: value.detach() for name, value in module.named_parameters()}
    buffers = dict(module.named_buffers())

    def loss(weights: Any, sample: torch.Tensor) -> torch.Tensor:
        return _losses(functional_call(module, (weights, buffers), (sample[None],)))[0]

    gradients = vmap(grad(loss), in_dims=(None, 0))
    return lambda: statistics_of(gradients(parameters, batch).items())


def by_loop(workload: Workload) -> Task:
    """Start a loop of forward and backward over single samples."""
    import torch

    module, batch = workload.module, torch.as_tensor(workload.batch)
    names, parameters = zip(*module.named_parameters(), strict=True)

    def one(sample: torch.Tensor) -> NDArray[np.float64]:
        gradients = torch.autograd.grad(_losses(module(sample[None]))[0], parameters)
        return statistics_of((name, gradient[None]) for name, gradient in zip(names, gradients, strict=True))

    return lambda: np.concatenate([one(sample) for sample in batch])


def by_backpack(workload: Workload) -> Task:
    """Start BackPACK with its BatchGrad extension."""
    import copy

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backpack, extensions = import_module("backpack"), import_module("backpack.extensions")
    module, batch = backpack.extend(copy.deepcopy(workload.module)), torch.as_tensor(workload.batch)
    parameters = dict(module.named_parameters())

    def step() -> NDArray[np.float64]:
        with backpack.backpack(extensions.BatchGrad()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a module without a rule is an error below
            torch.autograd.backward(_losses(module(batch)).sum())
        missing = [name for name, value in parameters.items() if not hasattr(value, "grad_batch")]
        if missing:
            raise NotImplementedError(f"BackPACK has no per-sample gradient of {', '.join(missing)}")
        found = statistics_of((name, value.grad_batch) for name, value in parameters.items())
        for value in parameters.values():
            value.grad = None
            del value.grad_batch
        return found

    return step


def by_gradient_metrics(workload: Workload) -> Task:
    """Start gradient-metrics: one backward pass per sample through the graph of the batch."""
    import torch

    metrics = import_module("gradient_metrics.metrics")
    module, batch = workload.module, torch.as_tensor(workload.batch)
    layers = [child for child in module.modules() if any(True for _ in child.parameters(recurse=False))]
    chosen = [
        metric
        for layer in [*([child] for child in layers), layers]
        for metric in (
            metrics.PNorm(layer, p=1),
            metrics.PNorm(layer, p=2),
            metrics.Min(layer),
            metrics.Max(layer),
            metrics.MeanStd(layer),
        )
    ]
    collector = import_module("gradient_metrics").GradientMetricCollector(chosen)
    return lambda: collector(_losses(module(batch)))


def _losses(logits: "torch.Tensor") -> "torch.Tensor":
    """Return −log p at the predicted label, [B]."""
    import torch

    return torch.nn.functional.cross_entropy(logits, logits.detach().argmax(1), reduction="none")
