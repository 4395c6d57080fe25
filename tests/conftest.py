"""Fixtures: prepared models, made once a session."""

import numpy as np
import pytest

from gradscore import prepare
from gradscore.graph.differentiate import builder

# Begun last, one of these would leave the other workers idle.
LONGEST = (
    "test_zoo",
    "test_cli",
    "test_docs",
    "test_rules",
    "test_readme",
    "test_fusing",
    "test_extending",
    "test_reproduce_paper",
)


def pytest_collection_modifyitems(items):
    """Let the longest modules come first."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def gradient_builder():
    """The builder's environment; installed from the package index where the machine has none yet."""
    builder.install()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Return a function: torch module, example -> path of its scoring model, cached by name."""
    import torch

    from gradscore import export_classifier

    folder = tmp_path_factory.mktemp("models")

    def make(name, module, example, **options):
        path = folder / f"{name}.scoring.onnx"
        if not path.exists():
            export_classifier(module, torch.as_tensor(example), folder / f"{name}.onnx")
            prepare(folder / f"{name}.onnx", path, **options)
        return path

    return make


@pytest.fixture
def rng():
    return np.random.default_rng(7)
