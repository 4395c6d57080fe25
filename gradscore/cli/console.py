"""Output of the command line: tables on stdout, progress and summaries on stderr."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # `score` starts faster without the modules of the evaluation
    from gradscore.comparing.comparison import GroupedEvaluation
    from gradscore.comparing.overview import Overview
    from gradscore.metrics.evaluation import Evaluation
    from gradscore.runs.scoring_run import Summary
    from gradscore.verdict import Importance, Verdict

SHOWN_METRICS = {"auroc": "AUROC", "aupr_in": "AUPR-In", "aupr_out": "AUPR-Out", "fpr95": "FPR95"}
ANSWERS = {
    "auroc_wrong": "finds wrong ones",
    "auroc_unknown": "finds unknown ones",
    "coverage": "accepted",
    "precision": "right of accepted",
}
_MOST_IMPORTANT = 12  # rows per kind
_PIPE_WIDTH = 1000  # wide enough that tables are not wrapped in a file or a pipe


class _Plain(Console):
    """A console that prints paths and names unchanged, without markup, emoji or colours."""

    def __init__(self, *, stderr: bool = False) -> None:
        terminal = (sys.stderr if stderr else sys.stdout).isatty()
        super().__init__(
            stderr=stderr, soft_wrap=stderr, width=None if terminal else _PIPE_WIDTH,
            highlight=False, markup=False, emoji=False,
        )  # fmt: skip


class _Speed(ProgressColumn):
    """Column with the inputs scored per second."""

    def render(self, task: Task) -> Text:
        """Show the speed of the run so far."""
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} images/s")


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal's stderr, and yield the function that advances it."""
    columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
    console = _Plain(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("scoring", total=total)
        yield lambda done: bar.advance(task, done)


def show_summary(summary: "Summary") -> None:
    """Print the summary of a scoring run."""
    console, rows = _Plain(stderr=True), summary.scored + summary.failed
    if summary.resumed == rows:
        console.print(
            f"nothing left to score: all {rows:,} inputs were already done, {summary.failed:,} failed: {summary.output}"
        )
    else:
        console.print(
            f"scored {summary.scored:,} inputs in {summary.seconds:.2f} s ({summary.images_per_second:,.0f} images/s), "
            f"{summary.failed:,} failed: {summary.output}"
        )
    if 0 < summary.resumed < rows:
        console.print(f"{summary.resumed:,} of these were finished by an earlier run")
    if summary.not_finite:
        console.print(f"{summary.not_finite:,} rows hold NaN or Inf from the model's own arithmetic")
    if summary.first_error:
        console.print(f"first failure: {summary.first_error}")


def show_fit(verdict: "Verdict", output: Path, left_out: int) -> None:
    """Print the rows of a fit, its trial on held-out rows, and its notes."""
    summary = verdict.summary
    console = _Plain(stderr=True)
    unknown = (
        f", {summary['unknown']:,} unknown inputs of {summary['kinds_of_unknown']} kinds" if summary["unknown"] else ""
    )
    console.print(
        f"fitted {verdict.method} to {summary['rows']:,} rows ({summary['correct']:,} correct, "
        f"{summary['incorrect']:,} incorrect{unknown}), accepts P(correct) ≥ {verdict.threshold:.4f}: {output}"
    )
    for line in _trial_lines(summary["trial"]):
        console.print(line)
    if left_out:
        console.print(f"{left_out:,} rows with an error were left out")
    for note in summary["notes"]:
        console.print(f"note: {note}")


def _trial_lines(trial: Mapping[str, Any] | None) -> Iterator[str]:
    """Say in five lines what held-out rows say of a verdict."""
    if trial is None:
        return
    yield "on rows held out from the fit (unknown inputs by kind)   AUROC   max softmax   entropy   gain (95 %)"
    words = {"wrong": "wrong predictions", "unknown": "unknown inputs", "all": "both together"}
    for name, one in trial["comparisons"].items():
        gain = one["auroc"] - one["max_softmax"]
        entropy = "—" if one["entropy"] is None else f"{100 * one['entropy']:.1f}"
        figures = f"{100 * one['auroc']:8.1f}{100 * one['max_softmax']:14.1f}{entropy:>10}"
        asked = f"{words[name]} ({one['others']:,})"
        interval = f"{100 * one['gain_low']:+.1f} to {100 * one['gain_high']:+.1f}"
        yield f"  {asked:<52}{figures}{100 * gain:+8.1f} ({interval})"
    unknown = trial["unknown_accepted"]
    accepted = f"; of unknown inputs it accepts {_interval(unknown)}" if unknown else ""
    yield (
        f"  the threshold accepts {_interval(trial['coverage'])} of known inputs, {_interval(trial['precision'])} of these right"
        f"{accepted}"
    )


def _interval(fraction: Sequence[float]) -> str:
    value, low, high = fraction
    return f"{100 * value:.1f} % ({100 * low:.0f} to {100 * high:.0f})"


def show_verdicts(counts: Mapping[str, int], output: Path) -> None:
    """Print how many rows were accepted and rejected."""
    _Plain(stderr=True).print(
        ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in counts.items()) + f": {output}"
    )


def show_overview(answers: "Mapping[str, Overview]", left_out: int, not_finite: int) -> None:
    """Print the accuracy, the AUROC of both questions, and what each verdict's threshold does, in percent."""
    first = next(iter(answers.values()))
    unknown = f"{first.unknown:,} unknown rows" if first.unknown else "no unknown rows"
    console = _Plain()
    console.print(
        f"accuracy {_share(first.accuracy)} % of {first.known:,} known rows, {first.wrong:,} wrong; {unknown}",
        soft_wrap=True,
    )
    if left_out or not_finite:
        console.print(f"rows left out: {left_out:,} with an error, {not_finite:,} with NaN or Inf", soft_wrap=True)
    shown = [name for name in ANSWERS if any(getattr(one, name) is not None for one in answers.values())]
    table = Table()
    table.add_column("confidence", overflow="fold")
    for name in shown:
        table.add_column(ANSWERS[name], justify="right")
    for name, one in answers.items():
        table.add_row(name, *(_share(getattr(one, column)) for column in shown))
    console.print(table)
    console.print(
        "percent; finds: AUROC, 50 is a coin; accepted: share of all rows at the verdict's threshold", soft_wrap=True
    )


def show_comparison(comparison: "Mapping[str, GroupedEvaluation]", convention: str) -> None:
    """Print the metrics of each confidence in percent, over all cases and then for each group."""
    first = next(iter(comparison.values())).pooled
    groups = list(next(iter(comparison.values())).groups)
    table = Table()
    table.add_column("confidence", overflow="fold")
    table.add_column("incorrect rows", overflow="fold")
    for heading in SHOWN_METRICS.values():
        table.add_column(heading, justify="right")
    for group in [None, *groups] if len(groups) > 1 else [None]:
        for name, result in comparison.items():
            one = result.pooled if group is None else result.groups[group]
            table.add_row(name, group or "all", *(_percent(one, metric) for metric in SHOWN_METRICS))
        table.add_section()
    console = _Plain()
    console.print(table)
    console.print(
        f"{first.correct:,} correct, {first.incorrect:,} incorrect; percent; convention {convention}", soft_wrap=True
    )


def show_explanation(found: "Sequence[Importance]") -> None:
    """Print the AUROC lost without each head, layer, statistic and feature, largest losses first."""
    table = Table()
    table.add_column("kind")
    table.add_column("name", overflow="fold")
    for heading in ("AUROC lost", "±", "coefficient"):
        table.add_column(heading, justify="right")
    for kind in dict.fromkeys(one.kind for one in found):
        for one in [one for one in found if one.kind == kind][:_MOST_IMPORTANT]:
            coefficient = "" if one.coefficient is None else f"{one.coefficient:+.3f}"
            table.add_row(kind, one.name, f"{100 * one.loss:.2f}", f"{100 * one.spread:.2f}", coefficient)
        table.add_section()
    console = _Plain()
    console.print(table)
    console.print(f"percent; at most {_MOST_IMPORTANT} of each kind, all with --json", soft_wrap=True)


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _percent(evaluation: "Evaluation", metric: str) -> str:
    value = f"{100 * getattr(evaluation, metric):.2f}"
    if metric not in evaluation.intervals:
        return value
    low, high = evaluation.intervals[metric]
    return f"{value} ({100 * low:.1f}–{100 * high:.1f})"


def show_inspection(report: Mapping[str, Any]) -> None:
    """Print the parameters of a scoring model, or the outputs and cost of a self-scoring model."""
    (_show_scoring if report["kind"] == "scoring" else _show_self_scoring)(report)


def _show_self_scoring(report: Mapping[str, Any]) -> None:
    console, cost = _Plain(), report["cost"]
    for key in ("fingerprint", "scoring_sha256", "source_sha256"):
        console.print(f"{key}: {report[key]}", soft_wrap=True)
    for kind in ("inputs", "outputs"):
        for item in report[kind]:
            extents, meaning = ", ".join(map(str, item["shape"])), item.get("meaning", "")
            console.print(f"{kind[:-1]}: {item['name']} {item['dtype']} [{extents}] {meaning}".rstrip(), soft_wrap=True)
    console.print(f"classes: {', '.join(report['class_names'])}", soft_wrap=True)
    if report["threshold"] is not None:
        used = len(report["used_features"])
        console.print(f"accepts P(correct) ≥ {report['threshold']:.4g}, read from {used} features", soft_wrap=True)
    table = Table()
    for heading in ("part", "nodes", "weight bytes", "FLOPs a sample"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for part, key in (("classifier", "classifier"), ("self-scoring model", "self_scoring")):
        row = cost[key]
        table.add_row(part, f"{row['nodes']:,}", f"{row['weight_bytes']:,}", f"{row['flops']:,}")
    console.print(table)
    console.print(
        f"{cost['added_nodes']:,} nodes and {cost['added_weight_bytes']:,} bytes added; {cost['flops_ratio']:.2f} times the "
        "classifier's FLOPs",
        soft_wrap=True,
    )


def _show_scoring(report: Mapping[str, Any]) -> None:
    console = _Plain()
    for key in ("fingerprint", "source_sha256", "engine", "preprocessing"):
        console.print(f"{key}: {report[key]}", soft_wrap=True)
    for item in report["inputs"]:
        extents = ", ".join(map(str, item["shape"]))
        console.print(f"input: {item['name']} {item['dtype']} [{extents}]", soft_wrap=True)
    console.print(f"classes: {', '.join(report['class_names'])}", soft_wrap=True)
    table = Table()
    for heading in ("layer", "op", "parameter", "shape"):
        table.add_column(heading, overflow="fold")
    table.add_column("count", justify="right")
    table.add_column("covered by", overflow="fold")
    for item in report["parameters"]:
        shape = "×".join(map(str, item["shape"]))
        table.add_row(item["layer"], item["op"], item["name"], shape, f"{item['count']:,}", item["coverage"])
    console.print(table)
    console.print(
        f"{report['weights']:,} weights, {report['covered_share']:.1%} covered; {report['features']} features",
        soft_wrap=True,
    )


def show_doctor(report: Mapping[str, Any]) -> None:
    """Print the state of the installation."""
    console, builder = _Plain(), report["builder"]
    facts = {
        "gradscore": report["gradscore"],
        "python": f"{report['python']} on {report['platform']}, {report['cores']} cores",
        "packages": ", ".join(f"{name} {number or '—'}" for name, number in report["packages"].items()),
        "runtime": ", ".join(f"{name} {number}" for name, number in report["runtimes"].items()) or "none",
        "providers": ", ".join(report["providers"]) or "none",
        "kernels": f"{report['default_backend']} (of {', '.join(report['backends'])}), SIMD {report['simd'] or '—'}",
        "builder": f"{builder['version']}, {'' if builder['installed'] else 'not '}installed, {builder['path']}",
    }
    for name, fact in facts.items():
        console.print(f"{name:<10} {fact}", soft_wrap=True)
    for kind in ("notes", "problems"):
        for line in report[kind]:
            console.print(f"{kind.removesuffix('s')}: {line}", soft_wrap=True)
