"""ResNet-50 for 224×224 images (He et al. 2016), for the benchmark on a GPU."""

import torch
from torch import nn


class Bottleneck(nn.Module):
    """A residual block of 1×1, 3×3 and 1×1 convolutions and their shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut = nn.Sequential()
        if stride > 1 or channels != 4 * width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the maps [B, 4 · width, height / stride, width / stride]."""
        inner = torch.relu(self.bn1(self.conv1(maps)))
        inner = torch.relu(self.bn2(self.conv2(inner)))
        return torch.relu(self.bn3(self.conv3(inner)) + self.shortcut(maps))


class ResNet50(nn.Module):
    """Logits [B, classes] of colour images [B, 3, 224, 224]."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        blocks = []
        channels = 64
        for stage, count in enumerate((3, 4, 6, 3)):
            width = 64 << stage
            for place in range(count):
                blocks.append(Bottleneck(channels, width, 2 if place == 0 and stage > 0 else 1))
                channels = 4 * width
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(channels, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        maps = self.pool(torch.relu(self.bn1(self.conv1(images))))
        return self.fc(self.blocks(maps).mean((2, 3)))
