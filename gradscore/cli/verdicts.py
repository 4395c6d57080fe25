"""The commands `gradscore apply`, `evaluate` and `explain`, which use verdicts."""

from pathlib import Path
from typing import Annotated

import typer

from gradscore.cli.options import (
    AsJson,
    Convention,
    DrawSeed,
    Labels,
    Output,
    Overwrite,
    Unknown,
    UnknownLabels,
    labelled_cases,
    print_json,
)

# Commands import what they need when they run, so that `--help` stays fast.
# ruff: noqa: PLC0415

Verdicts = Annotated[list[Path] | None, typer.Option("--verdict", help="Verdict to compare. Repeatable.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (apply, evaluate, explain):
        app.command()(command)


def apply(
    scores: Annotated[Path, typer.Argument(help="A score table.")],
    verdict: Annotated[Path, typer.Option(help="A verdict that `fit` wrote.")],
    output: Output,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
) -> None:
    """Compute P(correct) for every row of a score table, and accept or reject it.

    Example: gradscore apply scores.parquet --verdict verdict.onnx -o verdicts.parquet
    """
    import pyarrow.parquet as pq

    from gradscore.cli import console
    from gradscore.files.writing import refuse_existing, replacing
    from gradscore.tables.table import ScoreTable
    from gradscore.verdict import Verdict

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
        print_json({"output": str(output), **counts})


def evaluate(
    scores: Annotated[Path, typer.Argument(help="Score table of labelled inputs.")],
    unknown: Unknown = None,
    verdict: Verdicts = None,
    labels: Labels = None,
    unknown_labels: UnknownLabels = "error",
    convention: Convention = "hendrycks",
    target: Annotated[
        str,
        typer.Option(
            help="What to separate: correct (correct from all other rows), known (known from unknown classes) or "
            "misclassified (correct from wrong predictions, known classes only)."
        ),
    ] = "correct",
    bootstrap: Annotated[int, typer.Option(min=0, help="Bootstrap resamples for 95 % intervals. 0: no intervals.")] = 0,
    seed: DrawSeed = 0,
    as_json: AsJson = False,
) -> None:
    """Compare verdicts with maximum softmax, entropy and the table's extra features, as confidences.

    Example: gradscore evaluate test.parquet --unknown noise.parquet --verdict verdict.onnx
    """
    from gradscore.cli import console
    from gradscore.comparing.comparison import compare, load_verdicts
    from gradscore.tables.table import ScoreTable

    verdicts = load_verdicts(verdict or [])
    cases = labelled_cases(ScoreTable.read(scores), unknown, labels, unknown_labels, seed)
    comparison = compare(cases, verdicts, convention=convention, target=target, resamples=bootstrap, seed=seed)
    if as_json:
        print_json({name: result.as_dict() for name, result in comparison.items()})
    else:
        console.show_comparison(comparison, convention)


def explain(
    scores: Annotated[Path, typer.Argument(help="Score table of labelled inputs.")],
    verdict: Annotated[Path, typer.Option(help="A verdict that `fit` wrote.")],
    unknown: Unknown = None,
    labels: Labels = None,
    unknown_labels: UnknownLabels = "error",
    repeats: Annotated[int, typer.Option(min=1, help="Permutations of each layer, statistic and feature.")] = 5,
    seed: DrawSeed = 0,
    as_json: AsJson = False,
) -> None:
    """Show which layers, statistics and features a verdict depends on, by permutation importance.

    Example: gradscore explain test.parquet --unknown noise.parquet --verdict verdict.onnx
    """
    from gradscore.cli import console
    from gradscore.tables.table import ScoreTable, require_same_features, require_same_model
    from gradscore.verdict import Verdict
    from gradscore.verdict import explain as importance_of

    fitted = Verdict.load(verdict)
    cases = labelled_cases(ScoreTable.read(scores), unknown, labels, unknown_labels, seed)
    require_same_features(fitted.feature_names, cases.table.feature_names, "the verdict", "the table")
    require_same_model(fitted.model_fingerprint, cases.table.model_fingerprint, "the verdict", "the table")
    found = importance_of(fitted, cases.features, cases.correct, repeats=repeats, seed=seed)
    if as_json:
        print_json([one.as_dict() for one in found])
    else:
        console.show_explanation(found)
