"""Tables of the averages, as Markdown and CSV."""

import csv
import io
from collections.abc import Iterator

from tools.paper.averages import Averaged, Key
from tools.paper.measures import METRICS
from tools.paper.results import Results

TITLES = {
    1: "Table 1: thresholds on single numbers",
    2: "Table 2: linear meta-classifiers on raw features, fitted on the validation set",
    3: "Table 3: neural meta-classifiers on raw features, with known unknowns",
    4: "Table 4, beyond the paper: transformed features, other scores, other methods, synthetic unknowns",
    0: "Appendix: thresholds on the statistics of single layers",
}
METRIC_NAMES = {"auroc": "AUROC", "aupr_in": "AUPR-In", "aupr_out": "AUPR-Out"}


def markdown(results: Averaged) -> Iterator[str]:
    """Yield all tables, with one part per metric: means and standard deviations in percent."""
    for table, title in TITLES.items():
        rows = [key for key in results.rows if key[0] == table]
        yield from (f"## {title}", "")
        for metric, name in METRIC_NAMES.items():
            yield f"| {name} | {' | '.join(results.concepts)} |"
            yield "|---" * (1 + len(results.concepts)) + "|"
            for key in rows:
                cells = [str(results.mean(key, concept, metric)) for concept in results.concepts]
                yield f"| {label(key)} | {' | '.join(cells)} |"
            yield ""


def label(key: Key) -> str:
    """Return the label of a row."""
    return f"{key[1]} ({key[2]})" if key[2] else key[1]


def comma_separated(results: Results) -> str:
    """Return a CSV text with one line per row, concept and metric."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("table", "row", "fitted_on", "concept", "metric", "mean", "std", "fits"))
    for key, found in results.rows.items():
        for concept in results.concepts:
            for metric in METRICS:
                mean = results.mean(key, concept, metric)
                writer.writerow((*key, concept, metric, f"{mean.mean:.4f}", f"{mean.std:.4f}", len(found)))
    return text.getvalue()
