"""The tree: packages have an order, imports point only to lower packages, and no folder is crowded."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "gradscore"

# From the bottom up: a module may import from its own package and from packages before it.
ORDER = (
    "errors", "version", "files", "model", "inputs", "runtime",
    "graph.nodes", "graph.normalize", "graph.layers", "graph.differentiate", "graph.lower", "graph.statistics",
    "graph.assemble", "graph.checking",
    "detectors", "scoring", "tables", "runs", "metrics", "verdict.learning", "verdict", "comparing", "report", "preparing", "fusing",
    "triton", "exporting", "unknowns", "bench", "cli",
)  # fmt: skip
MOST_MODULES = 16  # a folder's __init__ included
TOP = ("bench.workloads",)  # prepares and exports by the public names, as a user does


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__").removesuffix("__init__")


def package_of(module):
    """Return the longest entry of ORDER that holds a module."""
    holding = [name for name in ORDER if module == name or module.startswith(f"{name}.")]
    assert holding, f"{module} stands in no package of ORDER: say where it belongs"
    return max(holding, key=len)


def imported(path):
    """Yield the gradscore modules that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (
                name.name.removeprefix("gradscore.") for name in node.names if name.name.startswith("gradscore.")
            )
        elif isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("gradscore."):
            assert node.level == 0, f"{path}: relative import"
            base = node.module.removeprefix("gradscore").lstrip(".")
            names = [f"{base}.{name.name}".lstrip(".") for name in node.names]
            yield from (name if (ROOT / f"{name.replace('.', '/')}.py").exists() else base for name in names)


def arrows():
    """Return {(package, imported package): where the import stands}."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        module = module_name(path)
        if module in ("", *TOP):
            continue
        for target in imported(path):
            if target:
                found.setdefault((package_of(module), package_of(target)), []).append(f"{module} -> {target}")
    return found


def test_no_arrow_points_upwards(capsys):
    found = arrows()
    with capsys.disabled():
        print()
        for package in ORDER:
            below = [target for source, target in found if source == package and target != package]
            print(f"  {package:22} {' '.join(sorted(below, key=ORDER.index))}")
    upwards = {pair: found[pair] for pair in found if ORDER.index(pair[0]) < ORDER.index(pair[1])}
    assert not upwards  # without an import upwards there is no cycle either


def test_no_module_imports_in_a_circle():
    graph = {}
    for path in sorted(ROOT.rglob("*.py")):
        module = module_name(path)
        if path.name != "__init__.py" and module not in TOP:
            graph[module] = {target for target in imported(path) if target and target != module}
    done, active = set(), []

    def visit(module):
        assert module not in active, " -> ".join([*active[active.index(module) :], module])
        if module in done:
            return
        active.append(module)
        for target in sorted(graph.get(module, ())):
            visit(target)
        done.add(active.pop())

    for module in graph:
        visit(module)


@pytest.mark.parametrize("folder", [ROOT, ROOT.parent / "kernels/gradscore_kernels", ROOT.parent / "kernels/native"])
def test_no_folder_is_crowded(folder):
    if not folder.is_dir():
        pytest.skip(f"{folder.name} is not here")
    for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        modules = [path.name for path in place.glob("*.py")]
        assert len(modules) <= MOST_MODULES, f"{place} holds {len(modules)} modules: {sorted(modules)}"


def test_no_package_is_called_like_a_public_function():
    import gradscore

    packages = {path.name for path in ROOT.iterdir() if path.is_dir()} | {path.stem for path in ROOT.glob("*.py")}
    assert not packages & set(gradscore.__all__)


def test_tests_mirror_the_tree():
    packages = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    others = {"docs", "examples", "kernels", "support", "tools", "fuzz"}
    folders = {path.name for path in Path(__file__).parent.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders <= packages | others
    assert not packages - folders
