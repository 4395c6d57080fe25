"""The command `gradscore reference`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradscore.cli.options import AsJson, Overwrite, Transposed, all_parts, parts, print_json
from gradscore.errors import InputError

if TYPE_CHECKING:
    from gradscore.inputs.sources import Source

# Commands import what they need when they run, so that `--help` stays fast.
# ruff: noqa: PLC0415

FOLDERS = "folders"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(reference)


def reference(
    model: Annotated[Path, typer.Argument(help="A scoring model.")],
    inputs: Annotated[
        list[str], typer.Argument(help="Inputs of known classes, best not those of the training; as for `score`.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, such as reference.safetensors.")],
    features: Annotated[
        list[str] | None,
        typer.Option(
            help="Detectors to learn for, comma-separated; repeatable. Default: all that the model can have, of: "
            "kl_matching, openmax, react, dice, knn, mahalanobis, mahalanobis_unit, mahalanobis_relative, "
            "mahalanobis_layers, vim, neco, nnguide, fdbd, grad_orth, grad_pca, grad_cosine, grad_kfac, grad_kfac_unit."
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="True classes, to leave out wrong predictions: a CSV with the columns id,label, or the word folders for "
            "the names of the inputs' folders. Default: every prediction counts as right."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read only this many inputs, the first ones.")] = None,
    idx_transposed: Transposed = False,
    providers: Annotated[str | None, typer.Option(help="onnxruntime providers, comma-separated. Default: CPU.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads. Default: all cores.")] = None,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
) -> None:
    """Learn from known inputs what is usual, for the detectors of `score --features NAME --reference FILE`.

    Of the inputs, a random sample of at most 10,000 is kept in memory, and what the detectors need of it in the file.

    Example: gradscore reference scoring.onnx validation/ -o reference.safetensors
    """
    from dataclasses import asdict

    from gradscore.cli import console
    from gradscore.inputs.sources import open_source
    from gradscore.runs.reference_run import learn_reference

    source = open_source(inputs, idx_transposed=idx_transposed).first(limit)
    truth = _truth(labels, source, model)
    with console.progress(len(source)) as advance:
        learned = learn_reference(
            model, source, output, features=all_parts(features), truth=truth, providers=parts(providers), threads=threads,
            overwrite=overwrite, progress=advance,
        )  # fmt: skip
    typer.echo(
        f"wrote {output}: {len(learned.detectors)} detectors, from {learned.rows:,} of {learned.right:,} right predictions "
        f"({learned.wrong:,} wrong, {learned.failed:,} unreadable)",
        err=True,
    )
    for name, reason in learned.left_out.items():
        typer.echo(f"left out: {name}: {reason}", err=True)
    if as_json:
        print_json(asdict(learned))


def _truth(labels: str | None, source: "Source", model: Path) -> Any:
    """Return the true class of each input, or None."""
    from gradscore.comparing.labels import from_csv, from_folders
    from gradscore.model.model_file import read_metadata

    if labels is None:
        return None
    metadata = read_metadata(model)
    names = [metadata.label_name(label) for label in range(metadata.classes)]
    if labels == FOLDERS:
        return from_folders(list(source.ids()), names)
    if not Path(labels).is_file():
        raise InputError(f"--labels: the file {labels} does not exist; it takes a CSV file, or the word {FOLDERS}")
    return from_csv(labels, list(source.ids()), names)
