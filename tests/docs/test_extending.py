"""The patches on the pages "Add a …": each applies to the sources, touches few files, and does what its page says."""

import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs/design"
PACKAGES = {"gradscore": ROOT / "gradscore", "gradscore_kernels": ROOT / "kernels/gradscore_kernels"}
BACKENDS = "kernels/gradscore_kernels/backends/numba_kernels.py"  # the code that every kernel needs

# The page, the number of files that its patch may touch, and a program that uses the patch beside the demo's files.
TOYS = {
    "add-a-kernel": (
        2,
        """
        import gradscore_kernels as gk, numpy as np
        a, delta = np.random.default_rng(0).standard_normal((2, 3, 4, 5, 6))
        spec = gk.KERNELS["scale"]
        expected = gk.direct_moments((a * delta).sum((2, 3)), backend="reference")
        for backend in ("reference", "numba"):
            np.testing.assert_allclose(spec.call(a, delta, backend=backend), expected, rtol=1e-9)
        try:
            spec.call(a, delta, backend="native")
        except gk.KernelError as error:
            assert "no kernel scale_moments" in str(error) or "not installed" in str(error)
        from gradscore.graph.statistics.reduction_rules import GRADIENT_RULES
        assert set(GRADIENT_RULES) == set(gk.KERNELS)
        from gradscore.model.layer_table import Layer, Parameter, Reduction
        from gradscore.scoring.raw_gradients import layer_gradients
        layer = Layer("norm", "Mul", (Parameter("norm.weight", (4,), "direct"),), (Reduction("scale", "d", "a"),))
        raw = layer_gradients(layer, {"a": a, "d": delta}, np.ones(3))["norm.weight"]
        np.testing.assert_allclose(raw, (a * delta).sum((2, 3)))
        """,
    ),
    "add-a-back-end": (
        1,
        """
        import numpy as np, gradscore_kernels as gk
        from gradscore import Scorer
        assert "double" in gk.available_backends() and gk.default_backend() != "double"
        images = np.random.default_rng(0).integers(0, 255, (3, 1, 8, 8), np.uint8)
        found = Scorer.load("demo/scoring.onnx", backend="double").score(images)
        np.testing.assert_allclose(found.features, Scorer.load("demo/scoring.onnx").score(images).features, rtol=1e-3)
        """,
    ),
    "add-an-input-kind": (
        1,
        """
        import gzip, numpy as np
        from gradscore import Scorer, open_source
        with gzip.open("digits.npy.gz", "wb") as file:
            np.save(file, np.zeros((2, 1, 8, 8), np.uint8))
        (batch,) = Scorer.load("demo/scoring.onnx").stream(open_source(["digits.npy.gz"]))
        assert batch.ids == ("digits.npy.gz#0", "digits.npy.gz#1") and batch.errors == (None, None)
        """,
    ),
    "add-an-extra-feature": (
        1,
        """
        import numpy as np
        from gradscore import Scorer
        scores = Scorer.load("demo/scoring.onnx", features=["gini"]).score(np.zeros((2, 1, 8, 8), np.uint8))
        assert scores.feature_names[-1] == "gini" and (0.1 <= scores["gini"]).all() and (scores["gini"] <= 1).all()
        """,
    ),
    "add-a-verdict-method": (
        1,
        """
        import numpy as np
        from gradscore import ScoreTable, Verdict, collect
        cases = collect(ScoreTable.read("demo/fit.parquet"))
        how = {"feature_names": cases.table.feature_names, "model_fingerprint": cases.table.model_fingerprint}
        fitted = Verdict.fit(cases.features, cases.correct, method="stumps", **how)
        fitted.save("stumps.onnx")
        table = ScoreTable.read("demo/test.parquet")
        np.testing.assert_allclose(Verdict.load("stumps.onnx").apply(table), fitted.apply(table))
        """,
    ),
    "add-a-score-flag": (
        2,
        """
        import sys, pyarrow.parquet as pq
        from gradscore.cli import main
        for name, flag in (("all.parquet", "0"), ("rest.parquet", "3")):
            sys.argv = ["gradscore", "score", "demo/scoring.onnx", "demo/images/test", "--skip", flag, "-o", name]
            try: main()
            except SystemExit as end: assert not end.code
        ids = [pq.read_table(name)["id"].to_pylist() for name in ("all.parquet", "rest.parquet")]
        assert ids[1] == ids[0][3:]
        """,
    ),
    "add-a-layer-rule": (
        1,
        """
        import onnx_ir as ir
        from gradscore.graph.layers.layer_rules import LAYER_RULES
        kind = ir.TensorType(ir.DataType.FLOAT)
        data, ceiling = (ir.Value(name=name, shape=ir.Shape([2, 3]), type=kind) for name in ("data", "ceiling"))
        ceiling.const_value = ir.tensor([[1.0, 2.0, 3.0]] * 2, name="ceiling")
        node = ir.Node("", "Min", [data, ceiling])
        graph = ir.Graph([data], [node.outputs[0]], nodes=[node], initializers=[ceiling])
        assert [value.name for value, _ in LAYER_RULES["Min"].find(node)] == ["ceiling"]
        """,
    ),
}


@pytest.fixture
def sources(checkout):
    """Return a checkout of both packages, with the compiled kernels."""
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGES["gradscore"], checkout / "gradscore", ignore=skip)
    shutil.copytree(PACKAGES["gradscore_kernels"], checkout / "kernels/gradscore_kernels", ignore=skip)
    native = find_spec("gradscore_kernels._native")
    if native is not None:
        shutil.copy(str(native.origin), checkout / "kernels/gradscore_kernels")
    return checkout


def patch_of(page):
    (block,) = re.findall(
        r"^```diff\n(.*?)^```", (PAGES / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return block


@pytest.mark.parametrize("page", TOYS)
def test_the_patch_of_the_page_works(page, sources):
    most, program = TOYS[page]
    patch = patch_of(page)
    touched = set(re.findall(r"^\+\+\+ b/(\S+)", patch, re.MULTILINE)) - {BACKENDS}
    assert 0 < len(touched) <= most, touched
    done = subprocess.run(
        [str(shutil.which("git")), "apply", "-p1", "-"],
        cwd=sources,
        input=patch,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"the patch on {page}.md is stale: {done.stderr}"
    lines = [line.removeprefix("        ") for line in program.strip("\n").splitlines()]
    places = [str(sources), str(sources / "kernels"), sysconfig.get_path("purelib"), *map(str, shared_places())]
    begin = [
        f"import sys; sys.path[:0] = {places!r}",
        "import gradscore",
        f"assert gradscore.__file__.startswith({str(sources)!r})",
    ]
    # Without `site`, an editable install cannot come before the patched copy.
    run = subprocess.run(
        [sys.executable, "-S", "-c", "\n".join([*begin, *lines])],
        cwd=sources,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def shared_places():
    """Return where this interpreter finds third-party packages, wherever they are installed."""
    return dict.fromkeys(Path(str(find_spec(name).origin)).parents[1] for name in ("numpy", "onnx_ir", "sklearn"))


def test_every_page_has_its_toy():
    assert {path.stem for path in PAGES.glob("add-*.md")} == set(TOYS)
