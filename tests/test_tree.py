"""No two classes, and no two public tables, of different modules have the same name."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ("gradscore", "kernels/gradscore_kernels")
SAME_THING = {
    "CONTAINERS": "each module of containers lists the endings of its own; sources joins them",
    "FLOATS": "the types that kernels compute in, as NumPy has them and as Numba has them",
    "SPECS": "each module of the catalogue lists its own kernels under this name",
    "__all__": "Python's own",
}


def modules():
    """Yield the path and the top-level statements of every module."""
    for source in SOURCES:
        for path in sorted((ROOT / source).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8")).body


def is_table(value):
    """Tell whether an expression is a literal collection, bare or in a call such as MappingProxyType or frozenset."""
    if isinstance(value, ast.Call):
        return any(is_table(argument) for argument in value.args)
    return isinstance(value, ast.Dict | ast.DictComp | ast.List | ast.Set | ast.Tuple)


def shared(found):
    """Return the names that several modules define."""
    places = {}
    for path, name in found:
        places.setdefault(name, set()).add(str(path))
    return {name: sorted(paths) for name, paths in places.items() if len(paths) > 1 and name not in SAME_THING}


def test_no_two_classes_share_a_name():
    assert not shared((path, item.name) for path, body in modules() for item in body if isinstance(item, ast.ClassDef))


def test_no_two_public_tables_share_a_name():
    found = []
    for path, body in modules():
        for item in body:
            targets = item.targets if isinstance(item, ast.Assign) else [getattr(item, "target", None)]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            if isinstance(item, ast.Assign | ast.AnnAssign) and is_table(item.value):
                found += [(path, name) for name in names if not name.startswith("_") or name == "__all__"]
    assert len(found) > 30
    assert not shared(found)


def test_exceptions_are_needed():
    text = "\n".join((ROOT / path).read_text(encoding="utf-8") for path, _ in modules())
    assert not [name for name in SAME_THING if text.count(f"\n{name}") < 2]
