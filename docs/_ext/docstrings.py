"""Docstrings as autodoc takes them: bars and stars are mathematics here, and public names are found where they are public."""

import re
from typing import Any

import gradscore_kernels
from docutils import nodes
from sphinx.application import Sphinx

import gradscore

_CODE = re.compile(r"(`[^`]*`)")
_MARKUP = re.compile(r"(?<!\\)([|*])")
_PUBLIC = {"gradscore": gradscore.__all__, "gradscore_kernels": gradscore_kernels.__all__}


def _escape(_app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Keep |g| from being a substitution and *a from being emphasis."""
    lines[:] = ["".join(_escaped(part) for part in _CODE.split(line)) for line in lines]


def _escaped(part: str) -> str:
    return part if part.startswith("`") else _MARKUP.sub(r"\\\1", part)


def _resolve(_app: Sphinx, env: Any, node: nodes.Element, contents: nodes.Element) -> nodes.Node | None:
    """Find `gradscore.scoring.Scorer`, as an annotation names it, under `gradscore.Scorer`."""
    target = str(node.get("reftarget", ""))
    package, name = target.partition(".")[0], target.rpartition(".")[2]
    if node.get("refdomain") != "py" or name not in _PUBLIC.get(package, ()):
        return None
    domain = env.get_domain("py")
    found = domain.find_obj(env, None, None, f"{package}.{name}", None)
    if not found:
        return None
    return domain.resolve_xref(env, node["refdoc"], _app.builder, "obj", f"{package}.{name}", node, contents)


def _ignore_foreign(_app: Sphinx, _env: Any, node: nodes.Element, contents: nodes.Element) -> nodes.Node | None:
    """Print the types of other packages, and our own that are not public, without a link."""
    return contents if node.get("refdomain") == "py" and node.get("reftype") in ("class", "obj", "data") else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to autodoc, and to references that it could not resolve."""
    app.connect("autodoc-process-docstring", _escape, priority=400)  # before napoleon
    app.connect("missing-reference", _resolve, priority=400)
    app.connect("missing-reference", _ignore_foreign, priority=900)
    return {"parallel_read_safe": True}
