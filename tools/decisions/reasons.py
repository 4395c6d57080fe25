"""Why the default wins and loses, as far as the figures show it: one small function a remark."""

from collections.abc import Callable
from statistics import fmean

from tools.decisions.measures import SEEN
from tools.decisions.results import BEST, DEFAULT, SOFTMAX, Results


def reasons(results: Results) -> list[str]:
    """Return all remarks that the results have figures for."""
    said = [remark for rule in REMARKS if (remark := rule(results)) is not None]
    return ["What this shows:", "", *(f"- {remark}" for remark in said), ""]


def two_questions(results: Results) -> str | None:
    """Say what one number loses that answers both questions."""
    single, own = _gain(results, "wrong", SOFTMAX, by=BEST), _gain(results, "wrong", SOFTMAX)
    if single is None or own is None:
        return None
    return (
        "One number does not answer both questions. The best single detectors rank wrong predictions "
        f"{single:+.1f} points against maximum softmax on average, the default's P(right) {own:+.1f}: it reads the softmax first, "
        "and distances for P(known) alone."
    )


def near(results: Results) -> str | None:
    """Say what happens near the known classes."""
    single, softmax = _gain(results, "near_right", BEST), _gain(results, "near_right", SOFTMAX)
    if single is None or softmax is None:
        return None
    return (
        f"Unknown inputs near the known classes are hard for everything. There the default is {single:+.1f} points against the "
        f"best single detectors and {softmax:+.1f} against maximum softmax. Synthetic unknowns teach what looks strange, not what "
        "means something else."
    )


def worst_group(results: Results) -> str | None:
    """Say where a single group loses most."""
    gains = [
        (own.mean - other.mean, task, group)
        for task in results.by_task
        for group in results.groups(task)
        if group not in SEEN
        and (own := results.group_mean(DEFAULT, task, group))
        and (other := results.group_mean(BEST, task, group))
    ]
    gain, task, group = min(gains, default=(0.0, "", ""))
    if gain >= 0:
        return None
    return (
        f"Its largest loss on one group is {-gain:.1f} points, on *{group}* ({task}). Which distances count, and in which direction, is "
        "learned from synthetic unknowns; what resembles none of them can be judged worse than by one plain distance."
    )


def corrupted(results: Results) -> str | None:
    """Say what corrupted inputs do to P(correct)."""
    both, right = (_gain(results, part, SOFTMAX, on="corrupted") for part in ("corrupted", "corrupted_right"))
    if both is None or right is None:
        return None
    return (
        "Corrupted inputs look unknown, though their predictions may be right. P(correct) ranks right and wrong ones among them "
        f"{both:+.1f} points against maximum softmax, P(right) {right:+.1f}."
    )


def calibration(results: Results) -> str | None:
    """Say what an ECE on few rows is worth."""
    floors = {task: results.mean(DEFAULT, task, "ece_correct_floor") for task in results.by_task}
    known = [one.mean for one in floors.values() if one is not None]
    if not known:
        return None
    return (
        "Few rows alone make an ECE: perfect probabilities of this kind would have "
        f"{min(known):.1f} to {max(known):.1f} points on as many rows."
    )


def not_compared(_results: Results) -> str:
    """Say what is missing from the comparison."""
    return "ODIN, MC dropout and ensembles are not compared: they need further passes or models."


REMARKS: tuple[Callable[[Results], str | None], ...] = (
    two_questions,
    near,
    worst_group,
    corrupted,
    calibration,
    not_compared,
)


def _gain(results: Results, part: str, over: str, *, on: str | None = None, by: str = DEFAULT) -> float | None:
    """Return the mean gain over the tasks that have the part."""
    found = [results.gain(task, part, over, on=on, by=by) for task in results.by_task]
    known = [one.mean for one in found if one is not None]
    return fmean(known) if known else None
