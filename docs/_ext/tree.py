"""The directive `tree`: the modules of a package, folder by folder, each with the first sentence of its docstring."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from rules import inline
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Tree(SphinxDirective):
    """A section for each folder, and in it what each module does."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        return [self._section(*found) for found in folders(self.arguments[0])]

    def _section(self, name: str, purpose: str, modules: list[tuple[str, str]]) -> nodes.section:
        section = nodes.section(ids=[nodes.make_id(name)], names=[nodes.fully_normalize_name(name)])
        self.state.document.note_implicit_target(section, section)
        section += nodes.title("", "", nodes.literal("", name))
        section += nodes.paragraph("", "", *inline(purpose))
        entries = nodes.definition_list()
        for module, summary in modules:
            meaning = nodes.definition("", nodes.paragraph("", "", *inline(summary)))
            entries += nodes.definition_list_item("", nodes.term("", "", nodes.literal("", module)), meaning)
        section += entries
        return section


def folders(package: str) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Yield each folder's name and purpose, and the names and summaries of its modules; nothing else is imported."""
    root = Path(str(importlib.import_module(package).__file__)).parent
    for place in sorted(path.parent for path in root.rglob("__init__.py")):
        name = "/".join((package, *place.relative_to(root).parts))
        modules = [(path.stem, _summary(path)) for path in sorted(place.glob("*.py")) if path.stem != "__init__"]
        yield name, _summary(place / "__init__.py"), modules


def _summary(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("tree", Tree)
    return {"parallel_read_safe": True}
