"""The commands `gradscore apply`, `evaluate` and `explain`, which use verdicts."""

from pathlib import Path
from typing import Annotated

import typer

from gradscore.cli.options import (
    AsJson,
    Convention,
    DrawSeed,
    Extra,
    Labels,
    Output,
    Overwrite,
    Unknown,
    UnknownLabels,
    labelled_cases,
    print_json,
    read_extra,
    tell_unused,
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
    extra: Extra = None,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
) -> None:
    """Compute P(correct) for every row of a score table, and accept or reject it.

    Example: gradscore apply scores.parquet --verdict verdict.onnx -o verdicts.parquet
    """
    import pyarrow.parquet as pq

    from gradscore.cli import console
    from gradscore.comparing.cases import KNOWN
    from gradscore.files.writing import refuse_existing, replacing
    from gradscore.tables.extra_columns import narrowed
    from gradscore.tables.table import ScoreTable
    from gradscore.verdict import Verdict

    refuse_existing(output, overwrite=overwrite)
    fitted, own = Verdict.load(verdict), read_extra(extra)
    own.require_tables([KNOWN])
    table = own.join(ScoreTable.read(scores), KNOWN)
    judged = fitted.judge(narrowed(fitted.feature_names, table, "the verdict"))
    tell_unused(own)
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
    extra: Extra = None,
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
    """Compare verdicts with maximum softmax, entropy, extra features and your own scores, as confidences.

    The first table answers two questions apart: are wrong predictions found, and unknown inputs?

    Example: gradscore evaluate test.parquet --unknown noise.parquet --verdict verdict.onnx
    """
    from gradscore.cli import console
    from gradscore.comparing.comparison import compare, confidences, load_verdicts
    from gradscore.comparing.overview import overviews
    from gradscore.tables.table import ScoreTable

    verdicts, own = load_verdicts(verdict or []), read_extra(extra)
    cases = labelled_cases(ScoreTable.read(scores), unknown, labels, unknown_labels, seed, extra=own)
    tell_unused(own)
    comparison = compare(
        cases, verdicts, columns=own.signs, convention=convention, target=target, resamples=bootstrap, seed=seed
    )
    usable = cases.finite()
    answers = overviews(usable, confidences(usable, verdicts, own.signs), verdicts)
    if as_json:
        print_json({name: {**one.as_dict(), "overview": answers[name].as_dict()} for name, one in comparison.items()})
        return
    console.show_overview(answers, cases.left_out, len(cases) - len(usable))
    console.show_comparison(comparison, convention)


def explain(
    scores: Annotated[Path, typer.Argument(help="Score table of labelled inputs.")],
    verdict: Annotated[Path, typer.Option(help="A verdict that `fit` wrote.")],
    unknown: Unknown = None,
    labels: Labels = None,
    unknown_labels: UnknownLabels = "error",
    extra: Extra = None,
    repeats: Annotated[int, typer.Option(min=1, help="Permutations of each layer, statistic and feature.")] = 5,
    seed: DrawSeed = 0,
    as_json: AsJson = False,
) -> None:
    """Show which heads, layers, statistics and features a verdict depends on, by permutation importance.

    Example: gradscore explain test.parquet --unknown noise.parquet --verdict verdict.onnx
    """
    from gradscore.cli import console
    from gradscore.tables.extra_columns import columns_read
    from gradscore.tables.table import ScoreTable, require_same_model
    from gradscore.verdict import Verdict
    from gradscore.verdict import explain as importance_of

    fitted, own = Verdict.load(verdict), read_extra(extra)
    cases = labelled_cases(ScoreTable.read(scores), unknown, labels, unknown_labels, seed, extra=own)
    tell_unused(own)
    read = columns_read(fitted.feature_names, cases.table, "the verdict")
    require_same_model(fitted.model_fingerprint, cases.table.model_fingerprint, "the verdict", "the table")
    found = importance_of(fitted, cases.features[:, read], cases.correct, repeats=repeats, seed=seed)
    if as_json:
        print_json([one.as_dict() for one in found])
    else:
        console.show_explanation(found)
