"""The figures of tables 1 to 3 of the paper (arXiv 1805.08440), in percent, and the places where they disagree.

The rows are named as in our tables: `all.l1` is the paper's absolute norm, `all.l2` its Euclidean norm, and the networks of
table 3 have the names of the rows that they were fitted on. The figures are means over 10 CNNs, in table 3 over 5 networks
each. The paper gives no spread.
"""

from collections.abc import Mapping
from dataclasses import dataclass

ALL_AUROC_GAIN = 0.81  # best known-unknowns network against its baseline, on all concepts together
ALL_AUPR_OUT_GAIN = 3.48


@dataclass(frozen=True)
class Reported:
    """One table of the paper.

    Attributes
    ----------
    concepts : tuple of str
        The tested concepts.
    rows : mapping
        The figures by metric and row, one per concept.
    """

    concepts: tuple[str, ...]
    rows: Mapping[str, Mapping[str, tuple[float, ...]]]

    def figure(self, row: str, concept: str, metric: str) -> float:
        """Return one figure."""
        return self.rows[metric][row][self.concepts.index(concept)]


TABLES: Mapping[int, Reported] = {
    1: Reported(
        ("correct/incorrect", "EMNIST letters", "CIFAR10", "uniform noise"),
        {
            "auroc": {
                "max softmax": (97.82, 87.62, 99.13, 92.95),
                "entropy": (97.74, 88.44, 99.24, 93.52),
                "all.l1": (97.77, 87.22, 98.19, 90.66),
                "all.l2": (97.78, 87.27, 98.38, 91.05),
                "all.min": (97.78, 87.30, 98.40, 90.50),
                "all.max": (97.70, 86.92, 98.31, 87.05),
                "all.std": (97.78, 87.26, 98.38, 90.98),
            },
            "aupr_in": {
                "max softmax": (99.97, 98.39, 99.98, 99.31),
                "entropy": (99.97, 98.38, 99.95, 99.36),
                "all.l1": (99.97, 98.42, 99.89, 99.07),
                "all.l2": (99.97, 98.42, 99.90, 99.11),
                "all.min": (99.97, 95.20, 99.90, 99.05),
                "all.max": (99.97, 95.03, 99.89, 98.67),
                "all.std": (99.97, 95.04, 99.90, 99.11),
            },
            "aupr_out": {
                "max softmax": (39.96, 59.04, 77.10, 40.10),
                "entropy": (95.56, 60.36, 91.27, 42.46),
                "all.l1": (95.28, 58.39, 66.62, 33.08),
                "all.l2": (95.30, 58.27, 70.81, 34.03),
                "all.min": (95.36, 58.76, 72.72, 33.00),
                "all.max": (95.32, 55.01, 74.59, 26.84),
                "all.std": (95.30, 58.26, 70.75, 33.88),
            },
        },
    ),
    2: Reported(
        ("correct/incorrect", "EMNIST letters", "CIFAR10", "uniform noise"),
        {
            "auroc": {
                "max softmax": (97.82, 87.62, 99.13, 92.95),
                "entropy": (97.74, 88.44, 99.42, 93.52),
                "GLM": (49.90, 50.00, 50.03, 50.54),
                "LASSO": (97.58, 89.33, 98.70, 93.90),
                "ridge": (66.07, 62.93, 66.32, 64.41),
                "elastic net": (97.77, 89.29, 98.54, 92.27),
            },
            "aupr_in": {
                "max softmax": (99.97, 98.39, 99.98, 99.31),
                "entropy": (99.97, 98.38, 99.99, 99.36),
                "GLM": (98.24, 86.40, 91.28, 85.40),
                "LASSO": (99.97, 98.34, 99.92, 99.33),
                "ridge": (99.22, 92.16, 95.86, 92.42),
                "elastic net": (99.97, 98.34, 99.91, 99.15),
            },
            "aupr_out": {
                "max softmax": (39.96, 59.04, 77.10, 40.10),
                "entropy": (95.56, 60.36, 86.07, 42.46),
                "GLM": (2.23, 16.47, 11.47, 23.54),
                "LASSO": (35.47, 64.63, 85.60, 48.75),
                "ridge": (3.02, 20.58, 14.75, 21.90),
                "elastic net": (46.18, 64.57, 75.52, 42.53),
            },
        },
    ),
    3: Reported(
        ("correct/incorrect", "Omniglot", "notMNIST", "CIFAR10", "normal noise", "uniform noise", "all"),
        {
            "auroc": {
                "max softmax": (97.84, 97.84, 95.24, 99.03, 94.49, 93.87, 95.83),
                "entropy": (97.74, 98.05, 95.41, 99.24, 94.36, 94.31, 96.04),
                "validation": (94.59, 94.38, 85.90, 81.19, 56.09, 86.77, 80.55),
                "+ uniform noise": (96.51, 97.29, 93.22, 96.27, 98.37, 94.22, 95.49),
                "+ CIFAR10": (96.69, 97.44, 94.49, 99.12, 98.34, 93.87, 96.36),
                "+ Omniglot": (96.68, 97.84, 94.86, 99.09, 98.17, 94.42, 96.64),
            },
            "aupr_in": {
                "max softmax": (99.97, 99.82, 99.43, 99.94, 99.60, 99.62, 98.59),
                "entropy": (99.97, 99.84, 99.45, 99.95, 99.59, 99.65, 98.66),
                "validation": (99.89, 99.04, 95.86, 95.47, 92.72, 98.05, 84.98),
                "+ uniform noise": (99.95, 99.73, 98.83, 99.41, 99.89, 99.56, 97.72),
                "+ CIFAR10": (99.96, 99.75, 99.19, 99.94, 99.89, 99.53, 98.53),
                "+ Omniglot": (99.96, 99.80, 99.29, 99.93, 99.88, 99.57, 98.71),
            },
            "aupr_out": {
                "max softmax": (39.94, 80.45, 14.59, 87.38, 57.32, 36.63, 88.07),
                "entropy": (35.83, 83.48, 74.86, 91.27, 54.98, 37.97, 89.17),
                "validation": (32.95, 74.17, 64.57, 54.45, 18.57, 56.66, 75.64),
                "+ uniform noise": (36.02, 80.36, 71.53, 73.93, 68.73, 58.56, 89.38),
                "+ CIFAR10": (35.98, 81.46, 74.91, 90.84, 67.89, 56.59, 91.23),
                "+ Omniglot": (35.33, 83.40, 75.13, 89.82, 65.12, 59.53, 91.55),
            },
        },
    ),
}

INCONSISTENCIES = (
    "The AUPR-Out of the entropy for CIFAR10 is 91.27 in tables 1 and 3, but 86.07 in table 2.",
    "The AUROC of the entropy for CIFAR10 is 99.24 in tables 1 and 3, but 99.42 in table 2.",
    "The AUPR-In of minimum, maximum and standard deviation for EMNIST letters is 95.20, 95.03 and 95.04. The two norms have "
    "98.42 there at the same AUROC.",
    "The AUPR-Out of maximum softmax for notMNIST is 14.59 in table 3, where the entropy has 74.86. It is probably a misprint.",
    "On `correct/incorrect`, maximum softmax has 97.82 AUROC and 39.96 AUPR-Out in table 1, but 97.84 and 39.94 in table 3. The "
    "AUPR-Out of the entropy is 95.56 in tables 1 and 2, but 35.83 in table 3.",
)

OTHER_NETWORKS = (
    "Besides, the thresholds of tables 1 and 3 differ for CIFAR10 and uniform noise, such as 77.10 and 87.38 AUPR-Out of maximum "
    "softmax for CIFAR10. Perhaps they come from other CNNs."
)
