"""The command line's second half, from score tables on: fit, apply, evaluate, explain, report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradscore.cli_options import (
    AsJson,
    Convention,
    DrawSeed,
    Labels,
    Output,
    Overwrite,
    Unknown,
    UnknownLabels,
    parts,
    print_json,
)
from gradscore.cli_unknowns import KnownInputs, noise_tables, unknowns
from gradscore.errors import InputError

if TYPE_CHECKING:
    from gradscore.cases import Cases
    from gradscore.features import ScoreTable
    from gradscore.sources import Source
    from gradscore.verdict.thresholds import Rule

# Commands import what they need, so that `--help` answers at once.
# ruff: noqa: PLC0415

Verdicts = Annotated[list[Path] | None, typer.Option("--verdict", help="Verdict to compare; repeatable.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (fit, apply, evaluate, explain, unknowns, report):
        app.command()(command)


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
    from gradscore import console
    from gradscore.features import ScoreTable
    from gradscore.verdict import Verdict
    from gradscore.verdict.thresholds import Balanced
    from gradscore.writing import refuse_existing

    refuse_existing(output, overwrite=overwrite)
    rule = _rule(
        {
            "target-precision": target_precision,
            "target-recall": target_recall,
            "max-fpr": max_fpr,
            "conformal-risk": max_risk,
            "conformal-fpr": max_fpr_risk,
        },
        cost_fp,
        cost_fn,
    )
    if calibration_unknown and not calibration:
        raise InputError("--calibration-unknown goes with --calibration: give the table of known classes too")
    table = ScoreTable.read(scores)
    made = noise_tables(model, with_noise, noise, known, seed, table.extra_features) if with_noise else {}
    cases = _cases(table, unknown, labels, unknown_labels, seed, made)
    further = (
        _cases(ScoreTable.read(calibration), calibration_unknown, labels, unknown_labels, seed) if calibration else None
    )
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
        rule=Balanced() if further else rule,
    )
    if further:
        verdict = verdict.decide_by(rule, further.features, further.correct)
    verdict.save(output, overwrite=overwrite)
    console.show_fit(verdict, output, cases.left_out)
    if as_json:
        print_json({"output": str(output), "method": verdict.method, "threshold": verdict.threshold, **verdict.summary})


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
        print_json({"output": str(output), **counts})


def evaluate(
    scores: Annotated[Path, typer.Argument(help="Score table of labelled inputs.")],
    unknown: Unknown = None,
    verdict: Verdicts = None,
    labels: Labels = None,
    unknown_labels: UnknownLabels = "error",
    convention: Convention = "hendrycks",
    target: Annotated[
        str, typer.Option(help="What to tell apart: correct (of all), known (of unknown) or misclassified (of known).")
    ] = "correct",
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples for 95 % intervals; 0: none.")] = 0,
    seed: DrawSeed = 0,
    as_json: AsJson = False,
) -> None:
    """Compare maximum softmax, entropy and verdicts.

    Example: gradscore evaluate test.parquet --unknown noise.parquet --verdict verdict.onnx
    """
    from gradscore import console
    from gradscore.comparison import compare, load_verdicts
    from gradscore.features import ScoreTable

    verdicts = load_verdicts(verdict or [])
    cases = _cases(ScoreTable.read(scores), unknown, labels, unknown_labels, seed)
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
    repeats: Annotated[int, typer.Option(min=1, help="Permutations of each feature.")] = 5,
    seed: DrawSeed = 0,
    as_json: AsJson = False,
) -> None:
    """Show which layers, statistics and features a verdict leans on.

    Example: gradscore explain test.parquet --unknown noise.parquet --verdict verdict.onnx
    """
    from gradscore import console
    from gradscore.features import ScoreTable, require_same_features, require_same_model
    from gradscore.verdict import Verdict
    from gradscore.verdict import explain as importance_of

    fitted = Verdict.load(verdict)
    cases = _cases(ScoreTable.read(scores), unknown, labels, unknown_labels, seed)
    require_same_features(fitted.feature_names, cases.table.feature_names, "the verdict", "the table")
    require_same_model(fitted.model_fingerprint, cases.table.model_fingerprint, "the verdict", "the table")
    found = importance_of(fitted, cases.features, cases.correct, repeats=repeats, seed=seed)
    if as_json:
        print_json([one.as_dict() for one in found])
    else:
        console.show_explanation(found)


def report(
    scores: Annotated[list[Path], typer.Argument(help="Score tables of labelled inputs.")],
    output: Output,
    unknown: Unknown = None,
    verdict: Annotated[
        list[Path] | None, typer.Option(help="Verdict; repeatable. The first decides, the others are compared.")
    ] = None,
    labels: Labels = None,
    unknown_labels: UnknownLabels = "error",
    images: Annotated[
        list[str] | None,
        typer.Option(help="Inputs as they were scored, for pictures: PATH, or NAME=PATH for --unknown. Repeatable."),
    ] = None,
    png: Annotated[Path | None, typer.Option(help="Folder for each figure as a PNG.")] = None,
    title: Annotated[str, typer.Option(help="The page's title.")] = "How far can these predictions be trusted?",
    convention: Convention = "hendrycks",
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples for 95 % intervals; 0: none.")] = 1000,
    seed: DrawSeed = 0,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
) -> None:
    """Write one HTML page with tables, figures and pictures, which loads nothing from anywhere.

    Example: gradscore report test.parquet --unknown noise.parquet --verdict verdict.onnx -o report.html
    """
    from gradscore.comparison import load_verdicts
    from gradscore.features import ScoreTable
    from gradscore.report import build, write_page, write_pngs
    from gradscore.writing import refuse_existing

    refuse_existing(output, overwrite=overwrite)
    table = ScoreTable.concatenate([ScoreTable.read(path) for path in scores])
    cases = _cases(table, unknown, labels, unknown_labels, seed)
    sources = _sources(images, cases.group_names)
    content = build(cases, load_verdicts(verdict or []), convention=convention, resamples=bootstrap, seed=seed)
    write_page(content, output, sources=sources, title=title, overwrite=overwrite)
    typer.echo(f"wrote {output}", err=True)
    if png:
        typer.echo(f"wrote {len(write_pngs(content, png, overwrite=overwrite))} figures into {png}", err=True)
    if as_json:
        print_json(content.as_dict())


def _cases(
    known: "ScoreTable",
    unknown: list[str] | None,
    labels: Path | None,
    unknown_labels: str,
    seed: int,
    made: "dict[str, ScoreTable] | None" = None,
) -> "Cases":
    from gradscore.cases import collect, read_unknown

    if unknown_labels not in ("error", "incorrect"):
        raise InputError(f"--unknown-labels is {unknown_labels!r}: it takes error or incorrect")
    tables = {**(made or {}), **read_unknown(unknown or [], seed=seed)}
    return collect(known, tables, label_file=labels, unknown_labels=unknown_labels)  # type: ignore[arg-type]  # checked above


def _rule(given: dict[str, float | None], cost_fp: float | None, cost_fn: float | None) -> "Rule":
    """Return the rule that the flags ask for, the balanced one where there are none."""
    from gradscore.verdict.thresholds import THRESHOLDS

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


def _sources(texts: list[str] | None, groups: tuple[str, ...]) -> "dict[str, Source]":
    """Read PATH, for the known rows, and NAME=PATH, for the unknown table NAME."""
    from gradscore.sources import open_source

    paths: dict[str, list[Path]] = {}
    for text in texts or []:
        name, _, path = text.partition("=")
        group = name if path and name in groups else groups[0]
        paths.setdefault(group, []).append(Path(path if group == name else text))
    return {group: open_source(places) for group, places in paths.items()}
