"""The application: its entry point, and the commands export, prepare, inspect, builder and doctor.

A command parses its options, makes one call into the API and prints. Data goes to stdout or files. Progress and errors
go to stderr.
"""

import io
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from gradscore.cli import fit as cli_fit
from gradscore.cli import fuse as cli_fuse
from gradscore.cli import reference as cli_reference
from gradscore.cli import report as cli_report
from gradscore.cli import score as cli_scoring
from gradscore.cli import unknowns as cli_unknowns
from gradscore.cli import verdicts as cli_verdicts
from gradscore.cli.bench import bench_app
from gradscore.cli.options import AsJson, ClassNames, Output, Overwrite, parts, print_json
from gradscore.errors import GradscoreError, InputError
from gradscore.runs.stopping import EXIT_INTERRUPTED, StoppedError
from gradscore.version import __version__

# Commands import what they need when they run, so that `--help` stays fast.
# ruff: noqa: PLC0415

EXIT_ERROR = 1

app = typer.Typer(
    help="Tell how likely each prediction of a classifier is to be right.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
builder_app = typer.Typer(help="The isolated environment that builds gradient graphs.", no_args_is_help=True)
app.add_typer(builder_app, name="builder")
app.add_typer(bench_app, name="bench")


def main() -> None:
    """Run the command line.

    An error is one line on stderr with exit code 1, an interruption one line with 130.
    """
    warnings.filterwarnings("ignore", module="PIL")  # the table already records a broken image in its row
    _mend_streams()
    try:
        app()
    except StoppedError as stop:
        _fail(str(stop), stop.code)
    except GradscoreError as error:
        _fail(str(error), EXIT_ERROR)
    except OSError as error:
        _fail(": ".join(str(part) for part in (error.filename, error.strerror or error) if part), EXIT_ERROR)
    except MemoryError:
        _fail("out of memory: use a smaller --batch-size or fewer --threads", EXIT_ERROR)
    except SystemExit as end:
        if end.code != EXIT_INTERRUPTED:
            raise
        _fail("interrupted; no unfinished output is left", EXIT_INTERRUPTED)


def _mend_streams() -> None:
    """Escape characters that the terminal's encoding lacks, and discard output to a closed stream (`2>&-`)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open until the process ends
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _fail(message: str, code: int) -> None:
    typer.echo(f"gradscore: {message}", err=True)
    sys.exit(code)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"gradscore {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Register the options that come before a command."""


@app.command()
def export(
    factory: Annotated[
        str, typer.Argument(help="package.module:factory, called without arguments, or a Hugging Face model's folder.")
    ],
    output: Output,
    input_shape: Annotated[str | None, typer.Option(help="Shape of one input, such as 1x28x28.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights: .safetensors, or a state dict (.pt), which is never unpickled.")
    ] = None,
    class_names: ClassNames = None,
    fold_batch_norm: Annotated[
        bool,
        typer.Option(
            "--fold-batch-norm", help="Merge batch normalisations into convolutions: faster, but other gradients."
        ),
    ] = False,
    exporter: Annotated[str, typer.Option(help="Exporter of torch: dynamo, or torchscript (tracing).")] = "dynamo",
    overwrite: Overwrite = False,
) -> None:
    """Export a PyTorch or Hugging Face classifier to ONNX.

    Example: gradscore export models.digits_cnn:DigitsCNN --input-shape 1x8x8 -o classifier.onnx
    """
    from gradscore.exporting.export import export_classifier, load_module
    from gradscore.exporting.huggingface import is_checkpoint, load_checkpoint

    names = _names(class_names)
    options: dict[str, Any] = {"fold_batch_norm": fold_batch_norm, "exporter": exporter, "overwrite": overwrite}
    if is_checkpoint(factory):
        loaded = load_checkpoint(factory)
        options |= {
            "class_names": names or loaded.class_names, "free_axes": loaded.free_axes,
            "preprocessing": loaded.preprocessing,
        }  # fmt: skip
        export_classifier(loaded.module, loaded.example, output, **options)
    else:
        if input_shape is None:
            raise InputError("--input-shape is missing: give the shape of one input, such as 1x28x28")
        shape = _extents(input_shape, "--input-shape", "1x28x28")
        module = load_module(factory, weights)
        import torch

        export_classifier(module, torch.zeros(2, *shape), output, class_names=names, **options)
    typer.echo(f"wrote {output}", err=True)


@app.command()
def prepare(
    classifier: Annotated[Path, typer.Argument(help="The classifier's ONNX file.")],
    output: Output,
    logits: Annotated[
        str | None, typer.Option(help="Name of the output with the logits, if there are several.")
    ] = None,
    class_names: ClassNames = None,
    scale: Annotated[
        float | None, typer.Option(help="A pixel 0..255 becomes (pixel·scale − mean) / std. Defaults: 1/255, 0 and 1.")
    ] = None,
    mean: Annotated[str | None, typer.Option(help="One number, or one per channel, comma-separated.")] = None,
    std: Annotated[str | None, typer.Option(help="One number, or one per channel, comma-separated.")] = None,
    color: Annotated[
        str | None, typer.Option(help="Images with other channels: strict (an error, the default) or convert.")
    ] = None,
    resize: Annotated[
        str | None,
        typer.Option(help="Resize the shorter side of images to this, or to HxW. Default: the model's size."),
    ] = None,
    crop: Annotated[
        str | None, typer.Option(help="After resizing, crop to the model's size: center, or none (the default).")
    ] = None,
    interpolation: Annotated[
        str | None, typer.Option(help="Of resizing: bilinear (the default), bicubic, lanczos or nearest.")
    ] = None,
    engine: Annotated[str, typer.Option(help="Engine that differentiates the graph.")] = "ort-training",
    allow_uncovered: Annotated[
        bool, typer.Option("--allow-uncovered", help="Accept parameters without a rule; the statistics omit them.")
    ] = False,
    external_data: Annotated[
        bool,
        typer.Option("--external-data", help="Write large weights into a file beside the model, even below 2 GB."),
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Turn a classifier into a scoring model.

    Example: gradscore prepare classifier.onnx -o scoring.onnx
    """
    from gradscore.preparing.preparation import prepare as run

    metadata = run(
        classifier,
        output,
        logits=logits,
        class_names=_names(class_names),
        scale=scale,
        mean=None if mean is None else _numbers(mean, "--mean"),
        std=None if std is None else _numbers(std, "--std"),
        color=color,
        resize=None if resize is None else _extents(resize, "--resize", "256 or 224x224"),
        crop=crop,
        interpolation=interpolation,
        engine=engine,
        allow_uncovered=allow_uncovered,
        external_data=external_data,
        overwrite=overwrite,
    )
    typer.echo(f"wrote {output}: {len(metadata.layers)} layers, {len(metadata.feature_names)} features", err=True)


@app.command()
def inspect(model: Annotated[Path, typer.Argument(help="A scoring model.")], as_json: AsJson = False) -> None:
    """List a scoring model's layers, parameters and coverage.

    Example: gradscore inspect scoring.onnx
    """
    from gradscore.cli import console
    from gradscore.preparing.inspection import inspect_model

    report = inspect_model(model)
    print_json(report) if as_json else console.show_inspection(report)


for commands in (cli_scoring, cli_reference, cli_fit, cli_verdicts, cli_unknowns, cli_report, cli_fuse):
    commands.register(app)


@builder_app.command("install")
def builder_install(
    force: Annotated[bool, typer.Option("--force", help="Install again, even if it is installed.")] = False,
) -> None:
    """Install onnxruntime-training into a separate environment in your cache folder (about 30 MB)."""
    from gradscore.graph.differentiate import builder

    present = builder.status()
    if not present.installed or force:
        typer.echo(f"installing onnxruntime-training {present.version} into {present.path}", err=True)
    typer.echo(f"installed: {builder.install(force=force).path}", err=True)


@builder_app.command("status")
def builder_status(as_json: AsJson = False) -> None:
    """Print whether the gradient builder is installed, and where."""
    from gradscore.graph.differentiate import builder

    status = builder.status()
    if as_json:
        print_json({"path": str(status.path), "installed": status.installed, "version": status.version})
    else:
        state = "installed" if status.installed else "not installed (run `gradscore builder install`)"
        typer.echo(f"onnxruntime-training {status.version}: {state}, {status.path}")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Print versions, providers, kernel back ends and problems of this installation. Exit code 1: problems."""
    from gradscore.cli import console
    from gradscore.preparing.inspection import examine_installation

    report = examine_installation()
    print_json(report) if as_json else console.show_doctor(report)
    if report["problems"]:
        raise typer.Exit(EXIT_ERROR)


def _names(text: str | None) -> list[str] | None:
    """Read names from a file, one per line, or from the text itself."""
    if text is None:
        return None
    if "," in text:
        return parts(text)
    try:
        lines = Path(text).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise InputError(
            f"--class-names: the file {text!r} does not exist; to give names themselves, separate them by commas"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--class-names: {text} cannot be read as text in UTF-8: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def _numbers(text: str, flag: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"{flag} is {text!r}: give numbers separated by commas") from error


def _extents(text: str, flag: str, example: str) -> list[int]:
    parts = text.lower().split("x")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise InputError(f"{flag} is {text!r}: give positive sizes, such as {example}")
    return [int(part) for part in parts]
