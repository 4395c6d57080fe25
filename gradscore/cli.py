"""The command line: parse, one call into the API, print. Data to stdout or files, progress and errors to stderr."""

import io
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from gradscore.errors import GradscoreError, InputError
from gradscore.version import __version__

# Commands import what they need, so that `--help` answers at once.
# ruff: noqa: PLC0415

EXIT_ERROR = 1
EXIT_SOME_FAILED = 3
EXIT_INTERRUPTED = 130

app = typer.Typer(
    help="How likely is each prediction of a classifier to be right?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
builder_app = typer.Typer(help="The isolated environment that builds gradient graphs.", no_args_is_help=True)
app.add_typer(builder_app, name="builder")

Output = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
ClassNames = Annotated[str | None, typer.Option(help="Names, comma-separated, or a file with one a line.")]
Labels = Annotated[
    Path | None,
    typer.Option("--labels", help="CSV with the columns id,label; by default folder names are the true classes."),
]
UnknownLabels = Annotated[
    str, typer.Option("--unknown-labels", help="What a label that is no class means: error, or incorrect.")
]
Unknown = Annotated[
    list[str] | None,
    typer.Option("--unknown", help="Score table of inputs of no known class; PATH:N draws N of its rows. Repeatable."),
]


def main() -> None:
    """Run the command line; an error is one line on stderr and exit code 1, an interruption one line and 130."""
    warnings.filterwarnings("ignore", module="PIL")  # what Pillow finds wrong with an image stands in its row
    _mend_streams()
    try:
        app()
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
    factory: Annotated[str, typer.Argument(help="package.module:factory, called without arguments.")],
    output: Output,
    input_shape: Annotated[str, typer.Option(help="Shape of one input, such as 1x28x28.")],
    weights: Annotated[Path | None, typer.Option(help="State dict (.pt, never unpickled) or .safetensors.")] = None,
    class_names: ClassNames = None,
    overwrite: Overwrite = False,
) -> None:
    """Export a torch classifier.

    Example: gradscore export models.digits_cnn:DigitsCNN --input-shape 1x8x8 -o classifier.onnx
    """
    from gradscore.export import export_classifier, load_module

    shape, names = _shape(input_shape), _names(class_names)
    module = load_module(factory, weights)
    import torch

    export_classifier(module, torch.zeros(2, *shape), output, class_names=names, overwrite=overwrite)
    typer.echo(f"wrote {output}", err=True)


@app.command()
def prepare(
    classifier: Annotated[Path, typer.Argument(help="The classifier's ONNX file.")],
    output: Output,
    logits: Annotated[str | None, typer.Option(help="Output with the class scores, if there are several.")] = None,
    class_names: ClassNames = None,
    scale: Annotated[float, typer.Option(help="A pixel 0..255 becomes (pixel·scale − mean) / std.")] = 1 / 255,
    mean: Annotated[str, typer.Option(help="One number, or one a channel, comma-separated.")] = "0",
    std: Annotated[str, typer.Option(help="One number, or one a channel, comma-separated.")] = "1",
    color: Annotated[str, typer.Option(help="Image of another channel count: strict (error) or convert.")] = "strict",
    engine: Annotated[str, typer.Option(help="Gradient engine.")] = "ort-training",
    allow_uncovered: Annotated[
        bool, typer.Option("--allow-uncovered", help="Leave parameters without a rule out of the statistics.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Turn a classifier into a scoring model.

    Example: gradscore prepare classifier.onnx -o scoring.onnx
    """
    from gradscore.preparation import prepare as run

    metadata = run(
        classifier,
        output,
        logits=logits,
        class_names=_names(class_names),
        scale=scale,
        mean=_numbers(mean, "--mean"),
        std=_numbers(std, "--std"),
        color=color,
        engine=engine,
        allow_uncovered=allow_uncovered,
        overwrite=overwrite,
    )
    typer.echo(f"wrote {output}: {len(metadata.layers)} layers, {len(metadata.feature_names)} features", err=True)


@app.command()
def inspect(model: Annotated[Path, typer.Argument(help="A scoring model.")], as_json: AsJson = False) -> None:
    """List a scoring model's layers, parameters and coverage.

    Example: gradscore inspect scoring.onnx
    """
    from gradscore import console
    from gradscore.inspection import inspect_model

    report = inspect_model(model)
    _print_json(report) if as_json else console.show_inspection(report)


@app.command()
def score(
    model: Annotated[Path, typer.Argument(help="A scoring model.")],
    inputs: Annotated[list[Path], typer.Argument(help="Image folders (recursive), image files, .npz or .npy arrays.")],
    output: Output,
    batch_size: Annotated[int, typer.Option(min=1, help="Inputs read and written together.")] = 256,
    providers: Annotated[str | None, typer.Option(help="onnxruntime providers, comma-separated; default CPU.")] = None,
    backend: Annotated[str, typer.Option(help="Kernel back end: auto, native, numba or reference.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of session and kernels; default all cores.")
    ] = None,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
) -> None:
    """Score inputs into a Parquet table. Exit code 3: done, but some inputs could not be read.

    Example: gradscore score scoring.onnx images/ -o scores.parquet
    """
    from gradscore import console
    from gradscore.batch import score_to_parquet
    from gradscore.scoring import Scorer
    from gradscore.sources import open_source
    from gradscore.writing import refuse_existing

    refuse_existing(output, overwrite=overwrite)
    scorer = Scorer.load(model, providers=_parts(providers), backend=backend, threads=threads)
    source = open_source(inputs)
    with console.progress(len(source)) as advance:
        summary = score_to_parquet(scorer, source, output, batch_size=batch_size, overwrite=overwrite, progress=advance)
    console.show_summary(summary)
    if as_json:
        _print_json(summary.as_dict())
    if summary.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command()
def fit(
    scores: Annotated[Path, typer.Argument(help="Score table of labelled inputs that the classifier never saw.")],
    output: Output,
    unknown: Unknown = None,
    labels: Labels = None,
    unknown_labels: UnknownLabels = "error",
    method: Annotated[str, typer.Option(help="lasso, glm, ridge, elastic-net, threshold, nn or boosting.")] = "lasso",
    features: Annotated[
        str | None, typer.Option(help="Patterns of the features to use, such as 'fc.*,entropy'.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed and rows give the same verdict.")] = 0,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
) -> None:
    """Fit a meta-classifier.

    Example: gradscore fit scores.parquet --unknown noise.parquet:200 -o verdict.onnx
    """
    from gradscore import console
    from gradscore.verdict import Verdict
    from gradscore.writing import refuse_existing

    refuse_existing(output, overwrite=overwrite)
    cases = _cases(scores, unknown, labels, unknown_labels, seed)
    verdict = Verdict.fit(
        cases.features,
        cases.correct,
        feature_names=cases.table.feature_names,
        model_fingerprint=cases.table.model_fingerprint,
        method=method,
        select=_parts(features),
        seed=seed,
    )
    verdict.save(output, overwrite=overwrite)
    console.show_fit(verdict, output, cases.left_out)
    if as_json:
        _print_json(
            {"output": str(output), "method": verdict.method, "threshold": verdict.threshold, **verdict.summary}
        )


@app.command()
def apply(
    scores: Annotated[Path, typer.Argument(help="A score table.")],
    verdict: Annotated[Path, typer.Option(help="A verdict that `fit` wrote.")],
    output: Output,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
) -> None:
    """Add P(correct) and accept or reject to every row.

    Example: gradscore apply scores.parquet --verdict verdict.onnx -o verdicts.parquet
    """
    import pyarrow.parquet as pq

    from gradscore import console
    from gradscore.features import ScoreTable
    from gradscore.verdict import Verdict
    from gradscore.writing import refuse_existing, replacing

    refuse_existing(output, overwrite=overwrite)
    judged = Verdict.load(verdict).judge(ScoreTable.read(scores))
    with replacing(output, overwrite=overwrite) as part:
        pq.write_table(judged, part, compression="zstd")
    answers = judged.column("verdict").to_pylist()
    counts = {
        "accepted": answers.count("accept"),
        "rejected": answers.count("reject"),
        "not_judged": answers.count(None),
    }
    console.show_verdicts(counts, output)
    if as_json:
        _print_json({"output": str(output), **counts})


@app.command()
def evaluate(
    scores: Annotated[Path, typer.Argument(help="Score table of labelled inputs.")],
    unknown: Unknown = None,
    verdict: Annotated[list[Path] | None, typer.Option(help="Verdict to compare; repeatable.")] = None,
    labels: Labels = None,
    unknown_labels: UnknownLabels = "error",
    convention: Annotated[str, typer.Option(help="hendrycks, openood or torch-uncertainty.")] = "hendrycks",
    seed: Annotated[int, typer.Option(help="Seed of the draw in PATH:N.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare maximum softmax, entropy and verdicts.

    Example: gradscore evaluate test.parquet --unknown noise.parquet --verdict verdict.onnx
    """
    from gradscore import console
    from gradscore.comparison import compare, load_verdicts

    verdicts = load_verdicts(verdict or [])
    cases = _cases(scores, unknown, labels, unknown_labels, seed)
    comparison = compare(cases, verdicts, convention=convention)
    if as_json:
        _print_json({name: result.as_dict() for name, result in comparison.items()})
    else:
        console.show_comparison(comparison, convention)


@builder_app.command("install")
def builder_install(
    force: Annotated[bool, typer.Option("--force", help="Install again even if it is there.")] = False,
) -> None:
    """Install onnxruntime-training into an environment of its own in your cache folder (about 30 MB)."""
    from gradscore import builder

    present = builder.status()
    if not present.installed or force:
        typer.echo(f"installing onnxruntime-training {present.version} into {present.path}", err=True)
    typer.echo(f"installed: {builder.install(force=force).path}", err=True)


@builder_app.command("status")
def builder_status(as_json: AsJson = False) -> None:
    """Tell whether the gradient builder is installed, and where."""
    from gradscore import builder

    status = builder.status()
    if as_json:
        _print_json({"path": str(status.path), "installed": status.installed, "version": status.version})
    else:
        state = "installed" if status.installed else "not installed (run `gradscore builder install`)"
        typer.echo(f"onnxruntime-training {status.version}: {state}, {status.path}")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Print versions, providers, kernel back ends, and problems."""
    from gradscore import console
    from gradscore.inspection import examine_installation

    report = examine_installation()
    _print_json(report) if as_json else console.show_doctor(report)
    if report["problems"]:
        raise typer.Exit(EXIT_ERROR)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def _cases(scores: Path, unknown: list[str] | None, labels: Path | None, unknown_labels: str, seed: int) -> Any:
    from gradscore.cases import collect, read_unknown
    from gradscore.features import ScoreTable

    if unknown_labels not in ("error", "incorrect"):
        raise InputError(f"--unknown-labels is {unknown_labels!r}: it takes error or incorrect")
    tables = read_unknown(unknown or [], seed=seed)
    return collect(ScoreTable.read(scores), tables, label_file=labels, unknown_labels=unknown_labels)  # type: ignore[arg-type]  # checked above


def _parts(text: str | None) -> list[str] | None:
    return [part.strip() for part in text.split(",")] if text else None


def _names(text: str | None) -> list[str] | None:
    """Read names from a file, one a line, or from the text itself."""
    if text is None:
        return None
    if "," in text:
        return _parts(text)
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


def _shape(text: str) -> list[int]:
    parts = text.lower().split("x")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise InputError(f"--input-shape is {text!r}: give one input's extents, such as 1x28x28")
    return [int(part) for part in parts]
