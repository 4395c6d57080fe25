"""The tables of tasks."""

from collections.abc import Mapping
from types import MappingProxyType

from models.digits_cnn import DigitsCNN
from models.paper_cnn import PaperCNN
from models.small_resnet import SmallResNet
from models.small_vit import SmallViT
from tools.decisions.picture_task import PictureTask
from tools.decisions.table_task import TableTask
from tools.decisions.task import Task
from tools.decisions.text_task import TextTask
from tools.decisions.training import Training

TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "mnist": PictureTask(
            title="MNIST, the paper's CNN",
            training=Training(epochs=8, rate=0.05),
            data_set="MNIST",
            channels=1,
            side=28,
            sizes=(16_000, 2_000, 3_000),
            unknown={"notMNIST": "far", "Omniglot": "near", "Fashion-MNIST": "far", "CIFAR-10": "far"},
            network=lambda _, classes: PaperCNN(classes),
        ),
        "fashion": PictureTask(
            title="Fashion-MNIST, a small ResNet",
            training=Training(epochs=4, rate=0.1),
            data_set="Fashion-MNIST",
            channels=1,
            side=28,
            sizes=(12_000, 2_000, 3_000),
            unknown={"MNIST": "far", "notMNIST": "far", "Omniglot": "far", "CIFAR-10": "far"},
            network=SmallResNet,
        ),
        "cifar": PictureTask(
            title="six classes of CIFAR-10's test photographs, a small ResNet",
            training=Training(epochs=16, rate=0.15, augment=True),
            data_set="CIFAR-10",
            channels=3,
            side=32,
            sizes=(3_600, 1_000, 1_400),
            unknown={"Fashion-MNIST": "far", "MNIST": "far", "notMNIST": "far", "Omniglot": "far"},
            network=SmallResNet,
            left_out=("bird", "dog", "horse", "truck"),
        ),
        "vit": PictureTask(
            title="eight classes of Fashion-MNIST, a small vision transformer",
            training=Training(epochs=8, rate=2e-3, decay=0.01, optimizer="adamw"),
            data_set="Fashion-MNIST",
            channels=1,
            side=28,
            sizes=(14_000, 2_000, 3_000),
            unknown={"MNIST": "far", "notMNIST": "far", "Omniglot": "far", "CIFAR-10": "far"},
            network=lambda channels, classes: SmallViT(channels, classes=classes),
            left_out=("coat", "sneaker"),
        ),
        "text": TextTask(
            title="mails by their origin, a small transformer",
            training=Training(epochs=10, rate=2e-3, decay=0.01, optimizer="adamw", batch=64),
            known=("spam", "fork", "ilug", "rpm", "feeds"),
            sizes=(2_200, 900, 1_100),
        ),
        "tabular": TableTask(
            title="eight of scikit-learn's digits as 64 numbers, an MLP",
            training=Training(epochs=80, rate=3e-3, decay=0.01, optimizer="adamw", batch=32),
            sizes=(120, 500, 820),
        ),
    }
)

MINIATURE: Mapping[str, Task] = MappingProxyType(
    {
        "pictures": PictureTask(
            title="eight of scikit-learn's digits, a CNN",
            training=Training(epochs=8, rate=5e-3, optimizer="adamw", batch=64),
            data_set="scikit-learn's digits",
            channels=1,
            side=8,
            sizes=(600, 300, 300),
            unknown={},
            network=lambda _, classes: DigitsCNN(classes),
            left_out=("8", "9"),
        ),
        "table": TableTask(
            title="the same as 64 numbers, an MLP",
            training=Training(epochs=10, rate=3e-3, decay=0.01, optimizer="adamw", batch=64),
            sizes=(300, 300, 300),
        ),
    }
)
"""The tasks of `--miniature`, which need no data and take seconds."""
