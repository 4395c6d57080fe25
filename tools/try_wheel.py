"""Install a built wheel into a clean environment, and prepare and score a model there.

Usage: python -m tools.try_wheel DIST. It uses the constraints of the checkout. The torch of this environment only exports
the model.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
CHECK = """
import numpy as np, gradscore, gradscore_kernels
assert 'site-packages' in gradscore.__file__, gradscore.__file__
print('back ends:', ', '.join(gradscore_kernels.available_backends()))
scorer = gradscore.Scorer.load('scoring.onnx')
scores = scorer.score(np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), dtype=np.uint8))
assert scores.features.shape == (5, len(scorer.feature_names)) and np.isfinite(scores.features).all()
"""


def main() -> None:
    """Install and run the only wheel in the folder."""
    (wheel,) = Path(sys.argv[1]).resolve().glob("*.whl")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run(sys.executable, "-c", _export(folder), cwd=ROOT)
        venv.create(folder / "env", with_pip=True)
        python = folder / "env" / "bin" / "python"
        _run(
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-compile",
            "-c",
            ROOT / "constraints.txt",
            f"{wheel}[cpu]",
            cwd=folder,
        )
        gradscore = python.with_name("gradscore")
        _run(gradscore, "doctor", cwd=folder)
        _run(gradscore, "builder", "install", cwd=folder)
        _run(gradscore, "prepare", "classifier.onnx", "-o", "scoring.onnx", cwd=folder)
        _run(python, "-c", CHECK, cwd=folder)
    print(f"{wheel.name} works in a clean environment")


def _export(folder: Path) -> str:
    return (
        "import torch, gradscore; torch.manual_seed(0); from models.digits_cnn import DigitsCNN;"
        f"gradscore.export_classifier(DigitsCNN(), torch.zeros(2, 1, 8, 8), {str(folder / 'classifier.onnx')!r})"
    )


def _run(*command: object, cwd: Path) -> None:
    subprocess.run([str(part) for part in command], check=True, cwd=cwd)


if __name__ == "__main__":
    main()
