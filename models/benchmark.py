"""The classifiers that `gradscore bench scoring` and tools/benchmark.py measure, each with random weights."""

from collections.abc import Callable

import torch
from torch import nn

from models.mlp import MLP
from models.paper_cnn import PaperCNN
from models.resnet18 import LargeResNet18, ResNet18
from models.transformer import Transformer


def paper_cnn() -> nn.Module:
    """Return the CNN of Oberdiek, Rottmann and Gottschalk (2018)."""
    return _seeded(PaperCNN)


def resnet18() -> nn.Module:
    """Return a ResNet-18 for 32×32 images."""
    return _seeded(ResNet18)


def large_resnet18() -> nn.Module:
    """Return a ResNet-18 for 224×224 images."""
    return _seeded(LargeResNet18)


def mlp() -> nn.Module:
    """Return a perceptron 784-512-512-10."""
    return _seeded(lambda: MLP(784, 512, 10))


def transformer() -> nn.Module:
    """Return two layers of width 128 over 64 positions."""
    return _seeded(Transformer)


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """Draw the same weights in every process."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()
