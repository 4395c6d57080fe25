"""The CNN of Oberdiek, Rottmann and Gottschalk (2018), section 4: 16 filters 3×3 three times, two max pools, LeakyReLU 0.1."""

import torch
from torch import nn


class PaperCNN(nn.Module):
    """Logits [B, 10] of grey images [B, 1, 28, 28]."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3)
        self.conv2 = nn.Conv2d(16, 16, 3)
        self.conv3 = nn.Conv2d(16, 16, 3)
        self.fc = nn.Linear(16 * 3 * 3, classes)
        self.pool = nn.MaxPool2d(2)
        self.activation = nn.LeakyReLU(0.1)
        self.dropout = nn.Dropout(0.33)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        maps = self.pool(self.dropout(self.activation(self.conv1(images))))
        maps = self.pool(self.activation(self.conv2(maps)))
        maps = self.activation(self.conv3(maps))
        return self.fc(self.dropout(maps.flatten(1)))
