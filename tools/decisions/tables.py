"""The tables of decisions.md, as lines of Markdown."""

from collections.abc import Sequence

from gradscore.detectors import DETECTORS
from tools.decisions.confidences import SUM, VERDICTS
from tools.decisions.goals import Goal
from tools.decisions.measures import SEEN
from tools.decisions.results import BEST, DEFAULT, SOFTMAX, Mean, Results

OTHERS = {
    "near": "near AUROC",
    "near_fpr95": "near FPR95",
    "far": "far AUROC",
    "far_fpr95": "far FPR95",
    "aupr_in": "AUPR-In",
    "aupr_out": "AUPR-Out",
    "fpr95": "FPR95 `all`",
    "aurc": "AURC",
    "corrupted": "corrupted",
}
LEAST = frozenset({"near_fpr95", "far_fpr95", "fpr95", "aurc"})
PARTS = {
    "all": "`all`",
    "wrong": "`wrong`, P(right)",
    "near_right": "near",
    "far_right": "far",
    "noise_right": "noise",
    "corrupted": "corrupted",
}


def marks(lines: Sequence[Goal]) -> list[str]:
    """Return the table of what was to be reached."""
    rows = []
    for one in lines:
        form = ".2f" if one.least else "+.2f"
        value = "–" if one.value is None else f"{one.value:{form}}"
        each = ", ".join(f"{task} {figure:{form}}" for task, figure in one.figures.items())
        reached = [cell for mark in (one.must, one.aim) for cell in (_mark(mark, one), one.reached(mark))]
        rows.append([one.question, value, *reached, each])
    return table(["question", "value", "must", "", "aim", "", "by task"], rows)


def _mark(mark: float | None, goal: Goal) -> str:
    return "–" if mark is None else f"≤ {mark:g}" if goal.least else f"≥ {mark:+g}"


def main_table(results: Results) -> list[str]:
    """Return AUROC on `all` and `wrong` for every confidence and task; the best of a column is bold."""
    tasks = list(results.by_task)
    columns = [(task, measure) for measure in ("all", "wrong") for task in tasks]
    header = ["confidence", *(f"{task} `{measure}`" for task, measure in columns), "mean `all`", "mean `wrong`"]
    order = ordered(results)
    found = {
        name: [results.mean(name, *one) for one in columns]
        + [results.over_tasks(name, one) for one in ("all", "wrong")]
        for name in order
    }
    return table(header, _with_best(found, [False] * (len(columns) + 2)))


def others(results: Results) -> list[str]:
    """Return the measures of other protocols, means over tasks."""
    found = {name: [results.over_tasks(name, measure) for measure in OTHERS] for name in ordered(results)}
    return table(["confidence", *OTHERS.values()], _with_best(found, [measure in LEAST for measure in OTHERS]))


def gains(results: Results) -> list[str]:
    """Return for each task what the default gains over the best single detector, part by part."""
    rows = []
    for task in results.by_task:
        opponents = {BEST: results.best[task], SUM: SUM, SOFTMAX: SOFTMAX}
        for over, words in opponents.items():
            each = [results.gain(task, part, over) for part in PARTS]
            rows.append([task, words, *(one.text("+") if one else "–" for one in each)])
    return table(["task", "default verdict less", *PARTS.values()], rows)


def groups(results: Results) -> list[str]:
    """Return AUROC of right predictions against each unknown group, for the default and its opponents."""
    rows = []
    for task in results.by_task:
        for group, family in results.groups(task).items():
            found = {name: results.group_mean(name, task, group) for name in (DEFAULT, BEST, SUM, SOFTMAX)}
            top = max(DETECTORS, key=lambda name: one.mean if (one := results.group_mean(name, task, group)) else 0.0)
            best = f"{_text(results.group_mean(top, task, group))} ({top})"
            seen = " (seen)" if group in SEEN else ""
            rows.append([task, f"{group}{seen}", family, *(_text(one) for one in found.values()), best])
    return table(
        ["task", "group", "family", "default", BEST, SUM, "maximum softmax", "best detector of the group"], rows
    )


def calibration(results: Results) -> list[str]:
    """Return the ECE on known test inputs, and that of perfect probabilities on as many rows."""
    rows = []
    for task, repetitions in results.by_task.items():
        raw = [Mean.of([one.about[key] for one in repetitions]).text() for key in ("ece_softmax", "ece_softmax_floor")]
        own = [
            results.mean(DEFAULT, task, f"ece_{question}{floor}")
            for question in ("correct", "right")
            for floor in ("", "_floor")
        ]
        cells = [raw, *([_text(one) for one in pair] for pair in (own[:2], own[2:]))]
        rows.append([task, *(f"{ece} ({floor})" for ece, floor in cells)])
    return table(["task", "softmax itself", "default, P(correct)", "default, P(right)"], rows)


def fits(results: Results) -> list[str]:
    """Return what `auto` chose for each task and seed, and how long fits took."""
    rows = []
    for one in results.repetitions:
        auto = one.fits.get(DEFAULT)
        if auto is not None:
            seconds = [one.fits[name]["seconds"] if name in one.fits else None for name in VERDICTS]
            taken = [f"{value:.0f}" if value is not None else "–" for value in seconds]
            rows.append([one.about["task"], str(one.about["seed"]), auto["method"], *taken])
    return table(["task", "seed", "`auto` chose", *(f"`{name}`, s" for name in VERDICTS)], rows)


def material(results: Results) -> list[str]:
    """Return what each task consists of."""
    rows = []
    for task, repetitions in results.by_task.items():
        accuracy = Mean.of([one.about["accuracy"]["test"] for one in repetitions]).text()
        wrong = ", ".join(str(one.about["wrong_test_rows"]) for one in repetitions)
        groups = repetitions[-1].about["groups"]
        families = [
            ", ".join(name.removeprefix("corrupted: ") for name, one in groups.items() if one["family"] == family)
            or "–"
            for family in ("near", "far", "noise", "corruption")
        ]
        rows.append([task, repetitions[0].about["title"], accuracy, wrong, *families])
    return table(["task", "what", "accuracy", "wrong test rows", "near", "far", "noise", "corruptions"], rows)


def ordered(results: Results) -> list[str]:
    """Return the names of the rows: verdicts, the sum, the best single one, then detectors, best first."""
    single = [name for name in results.names if name in DETECTORS]
    means = {name: results.over_tasks(name, "all") for name in single}
    single.sort(key=lambda name: -one.mean if (one := means[name]) else 0.0)
    return [name for name in results.names if name not in DETECTORS] + single


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table."""
    return [f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows)] + [""]


def _with_best(found: dict[str, list[Mean | None]], least: Sequence[bool]) -> list[list[str]]:
    best = []
    for column, smallest in enumerate(least):
        values = [round(one.mean, 1) for own in found.values() if (one := own[column]) is not None]
        best.append((min if smallest else max)(values, default=None))
    rows = []
    for name, own in found.items():
        cells = [
            f"**{one.text()}**" if one and round(one.mean, 1) == top else _text(one)
            for one, top in zip(own, best, strict=True)
        ]
        rows.append([f"**{name}** (default)" if name == DEFAULT else name, *cells])
    return rows


def _text(one: Mean | None) -> str:
    return one.text() if one else "–"
