"""A small residual network with batch norm: a stem, one or more blocks in each of three stages, and a dense layer."""

import torch
from torch import nn

from models.resnet18 import Block


class SmallResNet(nn.Module):
    """Logits [B, classes] of images [B, channels, side, side], such as 28×28 or 32×32."""

    def __init__(self, channels: int = 1, classes: int = 10, width: int = 16, blocks: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        stages: list[nn.Module] = []
        before = width
        for stage in range(3):
            filters = width << stage
            stages += [Block(before, filters, 1 if stage == 0 else 2)]
            stages += [Block(filters, filters, 1) for _ in range(blocks - 1)]
            before = filters
        self.blocks = nn.Sequential(*stages)
        self.fc = nn.Linear(before, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        maps = torch.relu(self.bn1(self.conv1(images)))
        return self.fc(self.blocks(maps).mean((2, 3)))
