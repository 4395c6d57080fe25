"""Numbers from the paper (arXiv 1805.08440) for comparison, only those that are certain.

The paper's tables were not available, so most of their cells are missing here.
"""

ENTROPY_CIFAR10_AUPR_OUT = {1: 91.27, 2: 86.07, 3: 91.27}  # by table: the same confidence, concept and test set
ENTROPY_CIFAR10_AUROC = (99.24, 99.42)  # the paper gives both
ALL_AUROC_GAIN = 0.81  # best known-unknowns network against its baseline, on all concepts together
ALL_AUPR_OUT_GAIN = 3.48
