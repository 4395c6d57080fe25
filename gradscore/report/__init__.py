"""The report: one self-contained HTML page, its figures as PNG, its numbers as JSON.

It needs `gradscore[report]`.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from gradscore.errors import GradscoreError, InputError
from gradscore.files.writing import refuse_existing, replacing
from gradscore.inputs.sources import Source
from gradscore.report.content import Content, build

__all__ = ["Content", "build", "write_page", "write_pngs"]

NO_SOURCES: Mapping[str, Source] = MappingProxyType({})
MOST_LAYERS = 24  # layers with a figure, which takes about 30 kB per group of rows shown


def write_page(
    content: Content,
    out: Path,
    *,
    sources: Mapping[str, Source] = NO_SOURCES,
    title: str = "How far can these predictions be trusted?",
    overwrite: bool = False,
) -> None:
    """Write the report as one HTML file that loads nothing from other files or sites.

    Parameters
    ----------
    content : Content
        The numbers to show, from `build`.
    out : Path
        The file to write.
    sources : mapping of str to Source
        Inputs of each group ("known", or the name of an unknown table), for the pictures in the galleries.
    title : str
        Title of the page.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    InputError
        The name of a source is not a group of the content.
    OutputExistsError
        `out` exists and `overwrite` is False.
    GradscoreError
        matplotlib or jinja2 is missing, or `out` cannot be written.
    """
    _require_extras()
    if foreign := sorted(set(sources) - set(content.cases.group_names)):
        raise InputError(f"pictures are given for {foreign[0]!r}; groups are: {', '.join(content.cases.group_names)}")
    refuse_existing(out, overwrite=overwrite)
    from gradscore.report import feature_figures, figures, page, pictures  # noqa: PLC0415 - matplotlib is an extra
    from gradscore.report.style import drawing  # noqa: PLC0415

    layers = feature_figures.by_strength(content)
    with drawing():
        drawn = {name: draw(content) for name, draw in figures.FIGURES.items()}
        folded = {name: feature_figures.layer(content, name) for name in layers[:MOST_LAYERS]}
    entries = pictures.find(sources, content.shown())
    html = page.render(content, drawn, folded, entries, title=title, left_layers=len(layers[MOST_LAYERS:]))
    with replacing(out, overwrite=overwrite) as part:
        part.write_text(html, encoding="utf-8")


def write_pngs(content: Content, folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write each figure as a PNG into a folder, and return the files.

    A missing folder is created.

    Raises
    ------
    OutputExistsError
        A file exists and `overwrite` is False.
    GradscoreError
        matplotlib is missing, or the folder cannot be written.
    """
    _require_extras()
    from gradscore.report import figures  # noqa: PLC0415 - matplotlib is an extra
    from gradscore.report.style import drawing, to_png  # noqa: PLC0415

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GradscoreError(f"cannot create the folder {folder}: {error.strerror}") from error
    files = {name: folder / f"{name}.png" for name in figures.FIGURES}
    for file in files.values():
        refuse_existing(file, overwrite=overwrite)
    for name, file in files.items():
        with drawing(), replacing(file, overwrite=overwrite) as part:
            part.write_bytes(to_png(figures.FIGURES[name](content).figure))
    return list(files.values())


def _require_extras() -> None:
    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        raise GradscoreError(f'a report needs {" and ".join(missing)}: run `pip install "gradscore[report]"`')
