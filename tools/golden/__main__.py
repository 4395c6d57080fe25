"""Golden outputs: what a checkout makes of fixed inputs, command by command and family by family, to compare with another's.

Usage, with the checkout's own Python and from its root:

    python -m tools.golden record FOLDER [--quick]
    python -m tools.golden compare FOLDER OTHER_FOLDER

`record` makes FOLDER anew: the demo, what every command writes from its files, and every family of the tests' zoo as scoring
models, features, gradients and self-scoring models. Then it writes FOLDER/golden.json, which says what each of these means
(`meaning.py` lists what is left out, and why). `--quick` leaves out the families that take longest. `compare` prints what
differs; its exit code is 1 where something does. Numbers are equal on machines alike: the file notes what it ran on.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gradscore
from tools.golden import commands, comparing, families
from tools.golden.meaning import Meaning

ROOT = Path(__file__).parents[2]
RECORD = "golden.json"
PACKAGES = ("gradscore", "numpy", "onnx", "onnxruntime", "pyarrow", "scikit-learn", "torch", "transformers")


def main() -> None:
    """Record or compare."""
    parser = argparse.ArgumentParser(prog="python -m tools.golden", description="Golden outputs of a checkout.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    record_parser = verbs.add_parser("record")
    record_parser.add_argument("folder", type=Path)
    record_parser.add_argument("--quick", action="store_true")
    compare_parser = verbs.add_parser("compare")
    compare_parser.add_argument("folders", type=Path, nargs=2)
    given = parser.parse_args()
    if given.verb == "record":
        record(given.folder.resolve(), quick=given.quick)
    else:
        one, other = (json.loads((folder / RECORD).read_text(encoding="utf-8")) for folder in given.folders)
        sys.exit(int(comparing.show(one, other) > 0))


def record(folder: Path, *, quick: bool) -> None:
    """Run everything into a folder that is made anew, and write what it means."""
    if ROOT not in Path(gradscore.__file__).parents:
        sys.exit(f"{gradscore.__file__} is not of this checkout: run its own Python, {ROOT}/.venv/bin/python")
    os.environ["OMP_NUM_THREADS"] = "1"  # torch and scikit-learn sum in another order on more
    start = time.perf_counter()
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "tools.demo", folder], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    meaning = Meaning(folder)
    things = commands.record(folder, meaning, ROOT) | families.record(folder, meaning, ROOT, quick=quick)
    found = {"made_on": _machine(), "things": things}
    (folder / RECORD).write_text(json.dumps(found, indent=0, sort_keys=True), encoding="utf-8")
    seconds, computed = time.perf_counter() - start, _processor_seconds()
    print(f"{len(things)} things in {seconds:.0f} s, {computed:.0f} s of a processor: {folder / RECORD}")


def _processor_seconds() -> float:
    """Return what this process and those that it ran have computed, however busy the machine is with other things."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _machine() -> dict[str, Any]:
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    versions = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "processor": model, "cores": os.cpu_count(), **versions}


if __name__ == "__main__":
    main()
