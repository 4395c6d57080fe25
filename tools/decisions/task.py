"""What a task is: data, a classifier, and how it is trained."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from gradscore.model.preprocessing import ImageOptions
from tools.decisions.material import Material
from tools.decisions.pictures import Pictures
from tools.decisions.training import Training


@dataclass(frozen=True)
class Task(ABC):
    """One task of the benchmark.

    Attributes
    ----------
    title : str
        What is classified by what, for the tables.
    training : Training
        How the classifier is trained.
    """

    title: str
    training: Training
    preprocessing: ClassVar[ImageOptions | None] = None

    @abstractmethod
    def draw(self, sources: Pictures, seed: int) -> Material:
        """Return the material of one repetition: the same for the same seed."""

    @abstractmethod
    def model(self, material: Material) -> nn.Module:
        """Return the classifier for this material, untrained."""
