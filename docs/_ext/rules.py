"""The directive `rules`: the rules of a package's modules with their docstrings, which state the algebra."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator, Mapping
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Rules(SphinxDirective):
    """Every table of rules below a package: the operator, and what becomes of it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a section a table."""
        return [self._section(name, *found) for name, *found in tables(self.arguments[0])]

    def _section(self, name: str, summary: str, rules: Mapping[str, Any]) -> nodes.section:
        section = nodes.section(ids=[nodes.make_id(name)], names=[nodes.fully_normalize_name(name)])
        self.state.document.note_implicit_target(section, section)
        section += nodes.title("", "", nodes.literal("", name))
        section += nodes.paragraph("", "", *inline(summary))
        entries = nodes.definition_list()
        for operator, rule in sorted(rules.items()):
            meaning = nodes.definition("", *(nodes.paragraph("", "", *inline(text)) for text in _docstring(rule)))
            entries += nodes.definition_list_item("", nodes.term("", "", nodes.literal("", operator)), meaning)
        section += entries
        return section


def tables(package: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield name, module summary and content of each public `…RULES` that a module below the package defines."""
    root = importlib.import_module(package)
    for found in sorted(pkgutil.walk_packages(root.__path__, f"{package}."), key=lambda item: item.name):
        if found.name.rpartition(".")[2].startswith("_"):
            continue  # a program of its own, which the builder's environment runs
        module = importlib.import_module(found.name)
        for name, value in vars(module).items():
            if name.endswith("RULES") and isinstance(value, Mapping) and _defined_here(module, name):
                yield f"{found.name}.{name}", _paragraphs(module.__doc__)[0], value


def _defined_here(module: Any, name: str) -> bool:
    return re.search(rf"^{name}\b[^=\n]*=", inspect.getsource(module), re.MULTILINE) is not None


def _docstring(rule: Any) -> list[str]:
    owner = rule if inspect.isfunction(rule) or inspect.isclass(rule) else type(rule)
    found = _paragraphs(getattr(owner, "__doc__", None))
    if not found[0]:
        raise ValueError(f"the rule {rule!r} has no docstring to show")
    return found


def _paragraphs(text: str | None) -> list[str]:
    return [" ".join(part.split()) for part in inspect.cleandoc(text or "").split("\n\n")]


def inline(text: str) -> Iterator[nodes.Node]:
    """Yield text, with what stands between backticks as code."""
    for index, part in enumerate(re.split(r"`+", text)):
        if part:
            yield nodes.literal("", part) if index % 2 else nodes.Text(part)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("rules", Rules)
    return {"parallel_read_safe": True}
