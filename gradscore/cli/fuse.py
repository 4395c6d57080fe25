"""`gradscore fuse`: parse, one call, print."""

from pathlib import Path
from typing import Annotated

import typer

from gradscore.cli.options import Output, Overwrite, parts

# Commands import what they need, so that `--help` answers at once.
# ruff: noqa: PLC0415


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(fuse)


def fuse(
    scoring: Annotated[Path, typer.Argument(help="A scoring model.")],
    output: Output,
    verdict: Annotated[Path | None, typer.Option(help="A verdict: adds P(correct), and accept or reject.")] = None,
    features: Annotated[
        str | None,
        typer.Option(help="Features to put out as well: patterns such as fc.*,all.l2, comma-separated; * all."),
    ] = None,
    drop_outputs: Annotated[
        bool, typer.Option("--drop-outputs", help="Go without outputs that standard operators cannot make.")
    ] = False,
    triton: Annotated[
        Path | None,
        typer.Option(help="Put it into this Triton model repository, too, configured for dynamic batching."),
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(
            help="Arrange it for CUDAExecutionProvider: sooner done there, later on a CPU. Either runs on both."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Join a scoring model and a verdict into one ONNX file that runs in any onnxruntime, without gradscore.

    Example: gradscore fuse scoring.onnx --verdict verdict.onnx -o self_scoring.onnx
    """
    from gradscore.fusing.fusion import fuse as run
    from gradscore.runtime.session import CPU_PROVIDER

    metadata = run(
        scoring, output, verdict=verdict, features=parts(features) or (), drop_outputs=drop_outputs,
        provider=provider or CPU_PROVIDER, overwrite=overwrite,
    )  # fmt: skip
    outputs = ", ".join((*metadata.outputs, *metadata.added.values()))
    typer.echo(f"wrote {output}: outputs {outputs}; P(correct) reads {len(metadata.used_features)} features", err=True)
    if triton is not None:
        from gradscore.triton.repository import write_repository

        typer.echo(f"wrote {write_repository(output, triton, overwrite=overwrite)}", err=True)
