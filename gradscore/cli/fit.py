"""The command `gradscore fit`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradscore.cli.options import (
    AsJson,
    DetectorReferenceFile,
    Extra,
    Labels,
    Output,
    Overwrite,
    Transposed,
    Unknown,
    UnknownLabels,
    labelled_cases,
    parts,
    print_json,
    read_extra,
    tell_unused,
)
from gradscore.cli.unknowns import KnownInputs, made_tables
from gradscore.errors import InputError

if TYPE_CHECKING:
    from gradscore.verdict.learning.thresholds import Rule

# Commands import what they need when they run, so that `--help` stays fast.
# ruff: noqa: PLC0415


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(fit)


def fit(
    scores: Annotated[
        Path, typer.Argument(help="Score table of labelled inputs that the classifier was not trained on.")
    ],
    output: Output,
    unknown: Unknown = None,
    labels: Labels = None,
    unknown_labels: UnknownLabels = "error",
    extra: Extra = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="The scoring model. Unknown inputs of every suitable kind are then made and scored for the fit."
        ),
    ] = None,
    known: KnownInputs = None,
    with_noise: Annotated[
        int, typer.Option(min=0, help="Unknown inputs of each kind to make if --model is given. 0: none.")
    ] = 100,
    noise: Annotated[
        str | None,
        typer.Option(help="Kinds to make, comma-separated; see `gradscore unknowns`. Default: all that suit."),
    ] = None,
    reference: DetectorReferenceFile = None,
    idx_transposed: Transposed = False,
    method: Annotated[
        str,
        typer.Option(
            help="auto, two-heads or max-softmax; or one classifier over all columns: lasso, glm, ridge, elastic-net, "
            "threshold, nn or boosting."
        ),
    ] = "auto",
    features: Annotated[
        str | None, typer.Option(help="Patterns of the features to use, such as 'fc.*,entropy'. Default: all.")
    ] = None,
    transform: Annotated[str, typer.Option(help="Transform of the features: signed-log or quantile.")] = "signed-log",
    calibrate: Annotated[
        str, typer.Option(help="Calibration learned on held-out rows: none, platt or isotonic.")
    ] = "none",
    unknown_share: Annotated[
        float,
        typer.Option(
            help="Share of unknown inputs for which auto, two-heads and max-softmax are calibrated, between 0 and 1."
        ),
    ] = 0.02,
    folds: Annotated[
        int, typer.Option(help="Cross-validation folds for penalty, threshold and calibration. 0: none.")
    ] = 5,
    ensemble: Annotated[int, typer.Option(help="Classifiers to average, with consecutive seeds (nn, boosting).")] = 1,
    target_precision: Annotated[
        float | None, typer.Option(help="Accept as many rows as possible with this precision, 0 to 1.")
    ] = None,
    target_recall: Annotated[
        float | None, typer.Option(help="Accept as few rows as possible with this recall, 0 to 1.")
    ] = None,
    max_fpr: Annotated[
        float | None, typer.Option(help="Accept at most this fraction of the incorrect rows, 0 to 1.")
    ] = None,
    cost_fp: Annotated[
        float | None, typer.Option(help="Cost of accepting an incorrect row. Requires --cost-fn.")
    ] = None,
    cost_fn: Annotated[float | None, typer.Option(help="Cost of rejecting a correct row. Requires --cost-fp.")] = None,
    max_risk: Annotated[
        float | None,
        typer.Option(help="Bound the probability that a row is incorrect and accepted. Requires --calibration."),
    ] = None,
    max_fpr_risk: Annotated[
        float | None,
        typer.Option(help="Bound the probability that an incorrect row is accepted. Requires --calibration."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Score table of further labelled inputs, to choose the threshold on.")
    ] = None,
    calibration_unknown: Annotated[
        list[str] | None, typer.Option(help="Like --unknown, for --calibration. Repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed. The same seed and rows give the same verdict.")] = 0,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
) -> None:
    """Fit a verdict to labelled rows, and compare it with maximum softmax on rows held out from the fit.

    Example: gradscore fit scores.parquet --model scoring.onnx --known images/ -o verdict.onnx
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
        raise InputError("--calibration-unknown requires --calibration: also give a table of known classes")
    if model and with_noise and extra:
        raise InputError(
            "--model makes unknown inputs that no --extra file has scores of: add --with-noise 0, make them with `gradscore "
            "unknowns -o made.npz`, score them both ways, and give their table by --unknown"
        )
    table, own = ScoreTable.read(scores), read_extra(extra)
    made = made_tables(model, with_noise, noise, known, idx_transposed, seed, table.extra_features, reference)
    cases = labelled_cases(table, unknown, labels, unknown_labels, seed, made, own)
    further = None
    if calibration:
        further = labelled_cases(
            ScoreTable.read(calibration), calibration_unknown, labels, unknown_labels, seed, extra=own
        )
    tell_unused(own)
    verdict = Verdict.fit(
        cases.features,
        cases.correct,
        feature_names=cases.table.feature_names,
        model_fingerprint=cases.table.model_fingerprint,
        kind=cases.group - 1,
        label=cases.label,
        method=method,
        transform=transform,
        calibration=calibrate,
        select=parts(features),
        folds=folds,
        ensemble=ensemble,
        seed=seed,
        rule=BALANCED if further else rule,
        unknown_share=unknown_share,
        reference_sha256=table.reference_sha256,
    )
    if further:
        verdict = verdict.decide_by(rule, further.features, further.correct)
    verdict.save(output, overwrite=overwrite)
    console.show_fit(verdict, output, cases.left_out)
    if as_json:
        print_json({"output": str(output), "method": verdict.method, "threshold": verdict.threshold, **verdict.summary})


def _rule(given: dict[str, float | None], cost_fp: float | None, cost_fn: float | None) -> "Rule":
    """Return the threshold rule chosen by the flags, or the balanced rule if there are none."""
    from gradscore.verdict.learning.thresholds import THRESHOLDS

    chosen: list[tuple[str, tuple[float, ...]]] = [
        (name, (value,)) for name, value in given.items() if value is not None
    ]
    if (cost_fp is None) != (cost_fn is None):
        raise InputError("--cost-fp and --cost-fn go together: give both, because only their ratio matters")
    if cost_fp is not None and cost_fn is not None:
        chosen.append(("cost", (cost_fp, cost_fn)))
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(name for name, _ in chosen)} each choose a threshold: give only one of them")
    name, values = chosen[0] if chosen else ("balanced", ())
    rule: Rule = THRESHOLDS[name](*values)
    return rule
