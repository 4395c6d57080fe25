"""The command line: parse, one call into the API, print. Data to stdout or files, progress and errors to stderr."""

import io
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from gradscore.cli import fit as cli_fit
from gradscore.cli import fuse as cli_fuse
from gradscore.cli import report as cli_report
from gradscore.cli import score as cli_scoring
from gradscore.cli import unknowns as cli_unknowns
from gradscore.cli import verdicts as cli_verdicts
from gradscore.cli.bench import bench_app
from gradscore.cli.options import AsJson, ClassNames, Output, Overwrite, parts, print_json
from gradscore.errors import GradscoreError, InputError
from gradscore.runs.stopping import EXIT_INTERRUPTED, StoppedError
from gradscore.version import __version__

# Commands import what they need, so that `--help` answers at once.
# ruff: noqa: PLC0415

EXIT_ERROR = 1

app = typer.Typer(
    help="How likely is each prediction of a classifier to be right?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
builder_app = typer.Typer(help="The isolated environment that builds gradient graphs.", no_args_is_help=True)
app.add_typer(builder_app, name="builder")
app.add_typer(bench_app, name="bench")


def main() -> None:
    """Run the command line; an error is one line on stderr and exit code 1, an interruption one line and 130."""
    warnings.filterwarnings("ignore", module="PIL")  # what Pillow finds wrong with an image stands in its row
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
        _fail("out of memory: a smaller --batch-size or fewer --threads need less", EXIT_ERROR)
    except SystemExit as end:
        if end.code != EXIT_INTERRUPTED:
            raise
        _fail("interrupted; no unfinished output is left", EXIT_INTERRUPTED)


def _mend_streams() -> None:
    """Print × as an escape where the encoding lacks it, and nothing at all where a stream is closed (`2>&-`)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - as long as the process lives
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
    """Register the options that stand before a command."""


@app.command()
def export(
    factory: Annotated[
        str, typer.Argument(help="package.module:factory, called without arguments; or a Hugging Face model's folder.")
    ],
    output: Output,
    input_shape: Annotated[str | None, typer.Option(help="Shape of one input, such as 1x28x28.")] = None,
    weights: Annotated[Path | None, typer.Option(help="State dict (.pt, never unpickled) or .safetensors.")] = None,
    class_names: ClassNames = None,
    fold_batch_norm: Annotated[
        bool,
        typer.Option(
            "--fold-batch-norm", help="Merge batch normalisations into convolutions: faster, other gradients."
        ),
    ] = False,
    exporter: Annotated[str, typer.Option(help="torch's exporter: dynamo, or torchscript, which traces.")] = "dynamo",
    overwrite: Overwrite = False,
) -> None:
    """Export a torch classifier.

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
            raise InputError("--input-shape is missing: give one input's extents, such as 1x28x28")
        shape = _extents(input_shape, "--input-shape", "1x28x28")
        module = load_module(factory, weights)
        import torch

        export_classifier(module, torch.zeros(2, *shape), output, class_names=names, **options)
    typer.echo(f"wrote {output}", err=True)


@app.command()
def prepare(
    classifier: Annotated[Path, typer.Argument(help="The classifier's ONNX file.")],
    output: Output,
    logits: Annotated[str | None, typer.Option(help="Output with the class scores, if there are several.")] = None,
    class_names: ClassNames = None,
    scale: Annotated[
        float | None, typer.Option(help="A pixel 0..255 becomes (pixel·scale − mean) / std; default 1/255, 0 and 1.")
    ] = None,
    mean: Annotated[str | None, typer.Option(help="One number, or one a channel, comma-separated.")] = None,
    std: Annotated[str | None, typer.Option(help="One number, or one a channel, comma-separated.")] = None,
    color: Annotated[
        str | None, typer.Option(help="Image of another channel count: strict (error, the default) or convert.")
    ] = None,
    resize: Annotated[
        str | None, typer.Option(help="Resize images to this shorter side, or HxW; default the model's size.")
    ] = None,
    crop: Annotated[
        str | None, typer.Option(help="Then cut out the model's size: center, or none (the default).")
    ] = None,
    interpolation: Annotated[
        str | None, typer.Option(help="bilinear (the default), bicubic, lanczos or nearest.")
    ] = None,
    engine: Annotated[str, typer.Option(help="Gradient engine.")] = "ort-training",
    allow_uncovered: Annotated[
        bool, typer.Option("--allow-uncovered", help="Leave parameters without a rule out of the statistics.")
    ] = False,
    external_data: Annotated[
        bool,
        typer.Option("--external-data", help="Write large weights into a file beside the model, whatever its size."),
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


for commands in (cli_scoring, cli_fit, cli_verdicts, cli_unknowns, cli_report, cli_fuse):
    commands.register(app)


@builder_app.command("install")
def builder_install(
    force: Annotated[bool, typer.Option("--force", help="Install again even if it is there.")] = False,
) -> None:
    """Install onnxruntime-training into an environment of its own in your cache folder (about 30 MB)."""
    from gradscore.graph.differentiate import builder

    present = builder.status()
    if not present.installed or force:
        typer.echo(f"installing onnxruntime-training {present.version} into {present.path}", err=True)
    typer.echo(f"installed: {builder.install(force=force).path}", err=True)


@builder_app.command("status")
def builder_status(as_json: AsJson = False) -> None:
    """Tell whether the gradient builder is installed, and where."""
    from gradscore.graph.differentiate import builder

    status = builder.status()
    if as_json:
        print_json({"path": str(status.path), "installed": status.installed, "version": status.version})
    else:
        state = "installed" if status.installed else "not installed (run `gradscore builder install`)"
        typer.echo(f"onnxruntime-training {status.version}: {state}, {status.path}")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Print versions, providers, kernel back ends, and problems."""
    from gradscore.cli import console
    from gradscore.preparing.inspection import examine_installation

    report = examine_installation()
    print_json(report) if as_json else console.show_doctor(report)
    if report["problems"]:
        raise typer.Exit(EXIT_ERROR)


def _names(text: str | None) -> list[str] | None:
    """Read names from a file, one a line, or from the text itself."""
    if text is None:
        return None
    if "," in text:
        return parts(text)
    try:
        lines = Path(text).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise InputError(
            f"--class-names: there is no file {text!r}; names themselves are separated by commas"
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
        raise InputError(f"{flag} is {text!r}: give extents, such as {example}")
    return [int(part) for part in parts]
