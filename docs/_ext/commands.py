"""The directive `commands`: every command of the command line, as the application itself describes it."""

import re
from collections.abc import Iterator
from typing import Any

import typer.main
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from gradscore.cli import app

PROGRAM = "gradscore"


def every_command(group: Any = None, prefix: str = PROGRAM) -> Iterator[tuple[str, Any]]:
    """Yield each command's name, such as `gradscore bench kernels`, with the command."""
    for name, command in (group or typer.main.get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from every_command(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


class Commands(SphinxDirective):
    """A section for each command: purpose, example, arguments and options."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        return [self._section(name, command) for name, command in every_command()]

    def _section(self, name: str, command: Any) -> nodes.section:
        purpose, _, example = (command.help or "").partition("Example:")
        section = nodes.section(ids=[nodes.make_id(name)], names=[nodes.fully_normalize_name(name)])
        self.state.document.note_implicit_target(section, section)
        section += nodes.title("", "", nodes.literal("", name))
        section += nodes.paragraph("", " ".join(purpose.split()))
        shown = f"$ {' '.join(example.split())}" if example else f"$ {name}"
        section += nodes.literal_block(shown, shown, language="console")
        context = command.make_context(command.name, [], resilient_parsing=True)
        records = [one.get_help_record(context) for one in command.params]
        if shown := [record for record in records if record]:
            section += _table(shown)
        return section


def _table(records: list[tuple[str, str]]) -> nodes.table:
    group = nodes.tgroup("", nodes.colspec(colwidth=35), nodes.colspec(colwidth=65), cols=2)
    group += nodes.thead("", _row([nodes.Text("argument or option")], [nodes.Text("meaning")]))
    rows = (_row(_tokens(_plain(name)), [nodes.Text(" ".join(meaning.split()))]) for name, meaning in records)
    group += nodes.tbody("", *rows)
    return nodes.table("", group)


def _row(*cells: list[nodes.Node]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells))


def _tokens(name: str) -> list[nodes.Node]:
    """Return each word as code of its own, so that a narrow screen breaks lines between them."""
    found: list[nodes.Node] = []
    for word in name.split():
        found += [nodes.literal("", word.rstrip(",")), nodes.Text(", " if word.endswith(",") else " ")]
    return found


def _plain(name: str) -> str:
    """Say `<path>` of one value as of several, and `<text>` instead of Python's name for it."""
    return re.sub(r"list\[(\w+)\]", r"\1", name).replace("<str>", "<text>").replace(" range>", ">")


def setup(sphinx: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    sphinx.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
