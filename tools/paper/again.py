"""tables.md again from results.json: no data, no fits.

results.json holds the averages, but not the gains of single repetitions that the account tells. So the account stays as the
run wrote it, and everything below it is written again.
"""

import json
from pathlib import Path

from gradscore import InputError
from gradscore.files.writing import replacing
from tools.paper.averages import Averages
from tools.paper.beside import HEADING, beside
from tools.paper.tables import TITLES, markdown

KNOWN_REASONS = "MNIST"  # the known concept for which the reasons in `beside` were written


def rewrite(folder: Path) -> None:
    """Write tables.md in a folder of results again.

    Raises
    ------
    InputError
        The folder has no results.json, or its tables.md has no tables.
    """
    path = folder / "tables.md"
    if not (folder / "results.json").is_file() or not path.is_file():
        raise InputError(f"{folder} has no results.json and tables.md: run the study without --tables-only first")
    whole = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    text = "\n".join([*_account(path), *sections(Averages.of(whole), whole["known"])])
    with replacing(path, overwrite=True) as part:
        part.write_text(text.rstrip() + "\n", encoding="utf-8")


def sections(results: Averages, known: str) -> list[str]:
    """Return the lines below the account."""
    return [*beside(results, reasons=known == KNOWN_REASONS), *markdown(results)]


def _account(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    ends = [lines.index(heading) for heading in (HEADING, f"## {TITLES[1]}") if heading in lines]
    if not ends:
        raise InputError(f"{path} has no tables: run the study without --tables-only")
    return lines[: min(ends)]
