"""The HTML page of a report, made from content, figures and pictures."""

import inspect
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gradscore.detectors import DETECTORS, Detector
from gradscore.inputs.sources import Entry
from gradscore.metrics.evaluation import Evaluation
from gradscore.report.content import Content
from gradscore.report.pictures import picture
from gradscore.report.style import ROLES, Drawn, to_svg
from gradscore.version import __version__

_DEFINED = ("max_softmax", "entropy", "max_logit", "energy", "gradnorm")  # in words of their own
COLUMNS = {
    "auroc": "AUROC",
    "aupr_in": "AUPR-In",
    "aupr_out": "AUPR-Out",
    "fpr95": "FPR95",
    "detection_accuracy": "detection accuracy",
    "aurc": "AURC",
    "eaurc": "E-AURC",
    "ece": "ECE",
    "brier": "Brier",
}


def render(
    content: Content,
    figures: Mapping[str, Drawn],
    layers: Mapping[str, Drawn],
    entries: Mapping[tuple[str, str], Entry],
    *,
    title: str,
    left_layers: int,
) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    content : Content
        The numbers to show.
    figures, layers : mapping of str to Drawn
        Figures by name. Those of layers are folded.
    entries : mapping of (group, id) to Entry
        Inputs for the galleries. A card without an entry has no picture.
    title : str
        Title of the page.
    left_layers : int
        Number of layers without a figure.
    """
    environment = Environment(
        loader=PackageLoader("gradscore.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    embedded = {name: _embedded(one, name) for name, one in figures.items()}
    folded = {name: _embedded(one, f"layer-{number}") for number, (name, one) in enumerate(layers.items())}
    return environment.get_template("report.html").render(
        title=title,
        version=__version__,
        content=content,
        summary=summary(content),
        columns=COLUMNS,
        cell=_cell,
        percent=_percent,
        share=_share,
        figures=embedded,
        layers=folded,
        left_layers=left_layers,
        detectors=[(name, _definition(one)) for name, one in DETECTORS.items() if name not in _DEFINED],
        doubtful=[_card(content, entries, row) for row in content.doubtful.tolist()],
        mistakes=[_card(content, entries, row) for row in content.mistakes.tolist()],
        light=[(role, light) for role, (light, _) in ROLES.items()],
        dark=[(role, dark) for role, (_, dark) in ROLES.items()],
    )


def _definition(detector: Detector) -> str:
    """Return what a detector computes and who proposed it, from its docstring."""
    computed, *further = (inspect.getdoc(type(detector)) or "").split("\n\n")
    return " ".join((computed, *further[:1])).replace("\n", " ").replace("`", "")


def summary(content: Content) -> list[str]:
    """Return a summary of the report in two or three sentences."""
    cases, chosen = content.cases, content.comparison[content.chosen].pooled
    right, known = int(cases.correct.sum()), int((cases.group == 0).sum())
    unknown = len(cases) - known
    mix = f", {unknown:,} of them inputs of no known class," if unknown else ""
    lines = [f"Of {len(cases):,} predictions{mix} {right:,} are right ({right / len(cases):.1%})."]
    decisions = content.decisions()
    accepted = sum(one.accepted for one in decisions)
    if decisions and not accepted:
        lines.append("The verdict rejects them all.")
    if accepted:
        accepted_right = sum(one.accepted_right for one in decisions)
        wrong = len(cases) - right
        caught = wrong - (accepted - accepted_right)
        lines.append(
            f"The verdict accepts {accepted:,} of them, of which {accepted_right / accepted:.1%} are right, and "
            f"rejects {caught:,} of the {wrong:,} wrong ones ({caught / wrong:.1%})."
        )
    lines.append(_versus(content, chosen))
    return lines


def _versus(content: Content, chosen: Evaluation) -> str:
    softmax = content.comparison["max_softmax"].pooled
    if content.chosen == "max_softmax":
        return f"Maximum softmax ranks a right prediction above a wrong one in {softmax.auroc:.1%} of pairs."
    return (
        f"It ranks a right prediction above a wrong one in {chosen.auroc:.1%} of pairs; maximum softmax does so in "
        f"{softmax.auroc:.1%}."
    )


def _embedded(drawn: Drawn, name: str) -> dict[str, Any]:
    svg = Markup(to_svg(drawn.figure, name))  # noqa: S704 - matplotlib has escaped all text, so it is safe to embed
    width = round(96 * drawn.figure.get_figwidth())
    return {"title": drawn.title, "caption": drawn.caption, "alt": drawn.alt, "svg": svg, "width": width}


def _card(content: Content, entries: Mapping[tuple[str, str], Entry], row: int) -> dict[str, Any]:
    cases, p = content.cases, float(content.p[row])
    group = cases.group_names[cases.group[row]]
    entry = entries.get((group, cases.ids[row]))
    return {
        "id": cases.ids[row],
        "group": group if cases.group[row] else None,
        "picture": picture(entry) if entry else None,
        "predicted": content.class_name(int(cases.label[row])),
        "true": content.class_name(int(cases.truth[row])),
        "right": bool(cases.correct[row]),
        "p": p,
        "accepted": None if content.threshold is None else p >= content.threshold,
    }


def _cell(evaluation: Evaluation, metric: str) -> dict[str, str]:
    value = getattr(evaluation, metric)
    interval = evaluation.intervals.get(metric)
    return {
        "value": "—" if value is None else f"{100 * value:.2f}",
        "interval": "" if interval is None else f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f}",
    }


def _share(value: float | None) -> str:
    return "—" if value is None else f"{100 * value:.2f}"


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "—"
