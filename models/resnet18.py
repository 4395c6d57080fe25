"""ResNet-18 (He et al. 2016) in two forms, for images of 32×32 and of 224×224."""

import torch
from torch import nn


class Block(nn.Module):
    """A residual block of two 3×3 convolutions and their shortcut."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.shortcut = nn.Sequential()
        if stride > 1 or channels != filters:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the maps [B, filters, height / stride, width / stride]."""
        inner = torch.relu(self.bn1(self.conv1(maps)))
        return torch.relu(self.bn2(self.conv2(inner)) + self.shortcut(maps))


class ResNet18(nn.Module):
    """Logits [B, classes] of colour images [B, 3, 32, 32].

    The stem is a 3×3 convolution without pooling.
    """

    def __init__(self, classes: int = 10, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        blocks = []
        channels = width
        for stage, stride in enumerate((1, 2, 2, 2)):
            filters = width << stage
            blocks += [Block(channels, filters, stride), Block(filters, filters, 1)]
            channels = filters
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(channels, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.fc(self.blocks(self.stem(images)).mean((2, 3)))

    def stem(self, images: torch.Tensor) -> torch.Tensor:
        """Return the input of the blocks."""
        return torch.relu(self.bn1(self.conv1(images)))


class LargeResNet18(ResNet18):
    """Logits [B, classes] of colour images [B, 3, 224, 224].

    The stem is a 7×7 convolution and a max pool.
    """

    def __init__(self, classes: int = 1000, width: int = 64) -> None:
        super().__init__(classes, width)
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)

    def stem(self, images: torch.Tensor) -> torch.Tensor:
        """Return the input of the blocks."""
        return self.pool(super().stem(images))
