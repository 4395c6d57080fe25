"""Classifiers with random weights for `gradscore bench scoring` and tools/benchmark.py."""

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
    """Return a multilayer perceptron 784-512-512-10."""
    return _seeded(lambda: MLP(784, 512, 10))


def transformer() -> nn.Module:
    """Return a transformer of two layers, with width 128 and 64 positions."""
    return _seeded(Transformer)


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """Make a module with a fixed seed, so that every process has the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()
