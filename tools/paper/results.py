"""Averages over all repetitions, the chosen verdict, and its gain over maximum softmax."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from tools.paper.averages import Key, Mean
from tools.paper.measures import ALL, CORRECT, METRICS
from tools.paper.rows import UNFITTED
from tools.paper.study import Result

ALLOWED_LOSS = 0.3  # points of AUROC on correct/incorrect that the chosen verdict may lose


@dataclass(frozen=True)
class Results:
    """All results and their averages.

    The key of a row is its table, its name and its fitting rows.
    """

    results: Sequence[Result]
    known_unknowns: str

    @cached_property
    def rows(self) -> Mapping[Key, list[Result]]:
        """The results of each row, over repetitions and networks."""
        rows: dict[Key, list[Result]] = {}
        for result in self.results:
            rows.setdefault((result.table, result.row, result.fitted_on), []).append(result)
        return rows

    @property
    def concepts(self) -> tuple[str, ...]:
        """The measured concepts: correct/incorrect, each unknown concept, and all."""
        return tuple(self.results[0].measures)

    def mean(self, key: Key, concept: str, metric: str) -> Mean:
        """Return the average of a metric over repetitions and networks."""
        return Mean.of([result.measures[concept][metric] for result in self.rows[key]])

    def gain(self, key: Key, concept: str, metric: str) -> Mean:
        """Return the average gain of a metric over maximum softmax on the same test set."""
        softmax = {one.seed: one.measures[concept][metric] for one in self.rows[1, "max softmax", UNFITTED]}
        return Mean.of([one.measures[concept][metric] - softmax[one.seed] for one in self.rows[key]])

    def held_out_gain(self, key: Key, concept: str, metric: str) -> float:
        """Return the average gain of a metric over maximum softmax on held-out rows."""
        first = [one for one in self.rows[key] if one.network == 0]
        return fmean(one.held_out[concept][metric] for one in first if one.held_out is not None)

    @property
    def candidates(self) -> list[Key]:
        """The verdicts of all tables that are fitted with all known unknowns."""
        return [key for key in self.rows if key[2] == self.known_unknowns]

    @cached_property
    def chosen(self) -> Key:
        """The verdict in the summary."""
        return self.best(self.candidates)

    def best(self, keys: Sequence[Key]) -> Key:
        """Return the row with the largest held-out AUROC among those that lose little on correct/incorrect."""
        frugal = [key for key in keys if self.held_out_gain(key, CORRECT, "auroc") >= -ALLOWED_LOSS]
        return max(frugal or keys, key=lambda key: self.held_out_gain(key, ALL, "auroc"))

    @property
    def summary(self) -> dict[str, float]:
        """Gains of the chosen verdict over maximum softmax, in points."""
        return {
            "cnns": len({result.seed for result in self.results}),
            "networks": 1 + max(result.network for result in self.results),
            "all_auroc_gain": self.gain(self.chosen, ALL, "auroc").mean,
            "all_aupr_out_gain": self.gain(self.chosen, ALL, "aupr_out").mean,
            "correct_auroc_change": self.gain(self.chosen, CORRECT, "auroc").mean,
        }

    def as_dict(self) -> list[dict[str, object]]:
        """Return the averages of every row for JSON."""
        return [
            {
                "table": key[0], "row": key[1], "fitted_on": key[2], "fits": len(found),
                "measures": {
                    concept: {metric: vars(self.mean(key, concept, metric)) for metric in METRICS}
                    for concept in self.concepts
                },
            }
            for key, found in self.rows.items()
        ]  # fmt: skip
