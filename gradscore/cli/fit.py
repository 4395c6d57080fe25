"""The command that fits a verdict to score tables."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradscore.cli.options import (
    AsJson,
    Labels,
    Output,
    Overwrite,
    Transposed,
    Unknown,
    UnknownLabels,
    labelled_cases,
    parts,
    print_json,
)
from gradscore.cli.unknowns import KnownInputs, noise_tables
from gradscore.errors import InputError

if TYPE_CHECKING:
    from gradscore.verdict.learning.thresholds import Rule

# Commands import what they need, so that `--help` answers at once.
# ruff: noqa: PLC0415


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(fit)


def fit(
    scores: Annotated[Path, typer.Argument(help="Score table of labelled inputs that the classifier never saw.")],
    output: Output,
    unknown: Unknown = None,
    labels: Labels = None,
    unknown_labels: UnknownLabels = "error",
    with_noise: Annotated[
        int | None, typer.Option(min=1, help="Make and score so many noise inputs of each kind, as unknown ones.")
    ] = None,
    noise: Annotated[str, typer.Option(help="Kinds for --with-noise; see `gradscore unknowns`.")] = "uniform",
    model: Annotated[Path | None, typer.Option(help="The scoring model, for --with-noise.")] = None,
    known: KnownInputs = None,
    idx_transposed: Transposed = False,
    method: Annotated[str, typer.Option(help="lasso, glm, ridge, elastic-net, threshold, nn or boosting.")] = "lasso",
    features: Annotated[
        str | None, typer.Option(help="Patterns of the features to use, such as 'fc.*,entropy'.")
    ] = None,
    transform: Annotated[str, typer.Option(help="What features go through first: signed-log or quantile.")] = (
        "signed-log"
    ),
    calibrate: Annotated[str, typer.Option(help="none, platt or isotonic, learned from held-out rows.")] = "none",
    folds: Annotated[int, typer.Option(help="Cross-validation for penalty, threshold and calibration; 0: none.")] = 5,
    ensemble: Annotated[int, typer.Option(help="Classifiers of consecutive seeds to average (nn, boosting).")] = 1,
    target_precision: Annotated[float | None, typer.Option(help="Accept as many as keep this precision.")] = None,
    target_recall: Annotated[float | None, typer.Option(help="Accept as few as keep this recall.")] = None,
    max_fpr: Annotated[float | None, typer.Option(help="Accept at most this share of the incorrect rows.")] = None,
    cost_fp: Annotated[float | None, typer.Option(help="Cost of accepting an incorrect one; with --cost-fn.")] = None,
    cost_fn: Annotated[float | None, typer.Option(help="Cost of rejecting a correct one; with --cost-fp.")] = None,
    max_risk: Annotated[
        float | None, typer.Option(help="Bound the chance of incorrect and accepted (conformal; --calibration).")
    ] = None,
    max_fpr_risk: Annotated[
        float | None,
        typer.Option(help="Bound the chance that an incorrect one is accepted (conformal; --calibration)."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Score table of further labelled inputs, to set the threshold on.")
    ] = None,
    calibration_unknown: Annotated[
        list[str] | None, typer.Option(help="As --unknown, for --calibration. Repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed and rows give the same verdict.")] = 0,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
) -> None:
    """Fit a meta-classifier and its threshold.

    Example: gradscore fit scores.parquet --unknown noise.parquet:200 -o verdict.onnx
    """
    from gradscore.cli import console
    from gradscore.files.writing import refuse_existing
    from gradscore.tables.table import ScoreTable
    from gradscore.verdict import Verdict
    from gradscore.verdict.learning.thresholds import BALANCED

    refuse_existing(output, overwrite=overwrite)
    targets = {"target-precision": target_precision, "target-recall": target_recall, "max-fpr": max_fpr}
    rule = _rule({**targets, "conformal-risk": max_risk, "conformal-fpr": max_fpr_risk}, cost_fp, cost_fn)
    if calibration_unknown and not calibration:
        raise InputError("--calibration-unknown goes with --calibration: give the table of known classes too")
    table = ScoreTable.read(scores)
    made = {}
    if with_noise:
        made = noise_tables(model, with_noise, noise, known, idx_transposed, seed, table.extra_features)
    cases = labelled_cases(table, unknown, labels, unknown_labels, seed, made)
    further = None
    if calibration:
        further = labelled_cases(ScoreTable.read(calibration), calibration_unknown, labels, unknown_labels, seed)
    verdict = Verdict.fit(
        cases.features,
        cases.correct,
        feature_names=cases.table.feature_names,
        model_fingerprint=cases.table.model_fingerprint,
        method=method,
        transform=transform,
        calibration=calibrate,
        select=parts(features),
        folds=folds,
        ensemble=ensemble,
        seed=seed,
        rule=BALANCED if further else rule,
    )
    if further:
        verdict = verdict.decide_by(rule, further.features, further.correct)
    verdict.save(output, overwrite=overwrite)
    console.show_fit(verdict, output, cases.left_out)
    if as_json:
        print_json({"output": str(output), "method": verdict.method, "threshold": verdict.threshold, **verdict.summary})


def _rule(given: dict[str, float | None], cost_fp: float | None, cost_fn: float | None) -> "Rule":
    """Return the rule that the flags ask for, the balanced one where there are none."""
    from gradscore.verdict.learning.thresholds import THRESHOLDS

    chosen: list[tuple[str, tuple[float, ...]]] = [
        (name, (value,)) for name, value in given.items() if value is not None
    ]
    if (cost_fp is None) != (cost_fn is None):
        raise InputError("--cost-fp and --cost-fn go together: only their ratio means something")
    if cost_fp is not None and cost_fn is not None:
        chosen.append(("cost", (cost_fp, cost_fn)))
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(name for name, _ in chosen)} each choose a threshold: ask for one of them")
    name, values = chosen[0] if chosen else ("balanced", ())
    rule: Rule = THRESHOLDS[name](*values)
    return rule
