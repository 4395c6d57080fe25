"""The command `gradscore fuse`."""

from pathlib import Path
from typing import Annotated

import typer

from gradscore.cli.options import DetectorReferenceFile, Output, Overwrite, parts

# Commands import what they need when they run, so that `--help` stays fast.
# ruff: noqa: PLC0415


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(fuse)


def fuse(
    scoring: Annotated[Path, typer.Argument(help="A scoring model.")],
    output: Output,
    verdict: Annotated[
        Path | None, typer.Option(help="A verdict. It adds P(correct), accept or reject, and why.")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(help="Features to add as outputs: comma-separated patterns, such as fc.*,all.l2. *: all."),
    ] = None,
    reference: DetectorReferenceFile = None,
    drop_outputs: Annotated[
        bool, typer.Option("--drop-outputs", help="Omit outputs that standard operators cannot compute.")
    ] = False,
    triton: Annotated[
        Path | None,
        typer.Option(help="Also write it into this Triton model repository, configured for dynamic batching."),
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(
            help="Provider to optimise for. CUDAExecutionProvider is faster on a GPU, slower on a CPU; both forms run "
            "on both. Default: CPUExecutionProvider."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Fuse a scoring model and a verdict into one ONNX file that runs without gradscore.

    Example: gradscore fuse scoring.onnx --verdict verdict.onnx -o self_scoring.onnx
    """
    from gradscore.fusing.fusion import fuse as run
    from gradscore.runtime.session import CPU_PROVIDER

    metadata = run(
        scoring, output, verdict=verdict, features=parts(features) or (), reference=reference, drop_outputs=drop_outputs,
        provider=provider or CPU_PROVIDER, overwrite=overwrite,
    )  # fmt: skip
    outputs = ", ".join((*metadata.outputs, *metadata.added.values()))
    typer.echo(f"wrote {output}: outputs {outputs}; the verdict reads {len(metadata.used_features)} features", err=True)
    if triton is not None:
        from gradscore.triton.repository import write_repository

        typer.echo(f"wrote {write_repository(output, triton, overwrite=overwrite)}", err=True)
