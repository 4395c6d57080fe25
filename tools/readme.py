"""Write the generated parts of README.md: the map of the modules and the command reference.

Usage: python -m tools.readme [--check]. With --check nothing is written, and the exit code is 1 where a part is stale.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import typer.main

from gradscore.cli import app

ROOT = Path(__file__).parent.parent
PACKAGES = ("gradscore", "kernels/gradscore_kernels")


def main() -> None:
    """Write or check README.md."""
    path = ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    new = rendered(old)
    if "--check" in sys.argv[1:]:
        sys.exit(int(new != old))
    path.write_text(new, encoding="utf-8")


def rendered(text: str) -> str:
    """Return the README with every generated part made anew."""
    for name, lines in (("modules", modules()), ("commands", commands())):
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        body = "\n".join([begin, *lines, end])
        text = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _, body=body: body, text, flags=re.DOTALL)
    return text


def modules() -> Iterator[str]:
    """Yield a table row a module, with the first sentence of its docstring."""
    yield "| module | what it does |"
    yield "|---|---|"
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            name = path.relative_to(ROOT).as_posix()
            yield f"| `{name}` | {' '.join(text.split(chr(10) * 2)[0].split())} |"


def commands() -> Iterator[str]:
    """Yield a table row a command, with its purpose and example."""
    yield "| command | purpose | example |"
    yield "|---|---|---|"
    group = typer.main.get_command(app)
    for name, command in _flat(group, "gradscore"):
        purpose, _, example = (command.help or "").partition("Example:")
        shown = f"`{' '.join(example.split())}`" if example else f"`{name}`"
        yield f"| `{name}` | {' '.join(purpose.split())} | {shown} |"


def _flat(group: typer.main.TyperGroup, prefix: str) -> Iterator[tuple[str, object]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _flat(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


if __name__ == "__main__":
    main()
