"""A multilayer perceptron with two hidden layers, for flat inputs."""

import torch
from torch import nn


class MLP(nn.Module):
    """Logits [B, classes] of vectors [B, inputs]."""

    def __init__(self, inputs: int = 20, hidden: int = 32, classes: int = 5) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, classes)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        hidden = torch.relu(self.fc1(vectors))
        return self.fc3(torch.tanh(self.fc2(hidden)))
