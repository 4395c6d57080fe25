"""Measure verdicts and detectors on real tasks.

Usage: python -m tools.benchmark_decisions --data-dir DIR --cache DIR [-o DIR] [--task NAME] [--seed N] [--miniature]

The folders of --data-dir hold the files of the data sets, see tools/decisions/pictures.py and mails.py. Every repetition is
cached, and so is every fit to it: a killed run continues where it was. Without --data-dir, only what the cache holds counts, and
what is missing is said. --tables-only writes text and figure again from the results.json in the output folder.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from platformdirs import user_cache_path

from tools.decisions import report
from tools.decisions.confidences import CONFIDENCES, SUM
from tools.decisions.measured import Measured
from tools.decisions.pictures import Pictures
from tools.decisions.repetition import repetition
from tools.decisions.results import DEFAULT, SOFTMAX, Results
from tools.decisions.scoring import scored
from tools.decisions.tasks import MINIATURE, TASKS
from tools.decisions.timing import time_ratio

SEEDS = (0, 1, 2)
SLOW = ("ridge", "nn", "lasso")  # single heads that the miniature leaves out, unless --confidence names them
REFERENCES = (DEFAULT, SUM, SOFTMAX)  # what the text compares: always there


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    options = _options(arguments)
    if options.tables_only:
        report.render(json.loads((options.output / report.RESULTS).read_text(encoding="utf-8")), options.output)
        return
    torch.set_num_threads(1)  # a classifier's weights then do not depend on the machine's cores
    start = time.perf_counter()
    wanted = [(name, seed) for seed in options.seed for name in options.task]
    files = {one: path for one in wanted if (path := _scored(*one, options)) is not None}
    if not options.only_score:
        _judge(files, wanted, options, start)


def _scored(name: str, seed: int, options: argparse.Namespace) -> Path | None:
    """Return the scored rows of a repetition, or None where they are neither cached nor can be made."""
    print(f"{name}, seed {seed}", flush=True)
    path = options.cache / f"{name}-{seed}.npz"
    if not (path.exists() or options.data_dir or options.miniature or options.only_score):
        print("  missing: it is not in the cache, and --data-dir is not given", flush=True)
        return None
    path = scored(name, options.tasks[name], Pictures(options.data_dir), seed, options.cache)
    print(_told(Measured.read(path)), flush=True)
    return path


def _judge(
    files: dict[tuple[str, int], Path], wanted: report.Wanted, options: argparse.Namespace, start: float
) -> None:
    """Fit, measure and write."""
    found, ratios = [], {}
    for (name, seed), path in files.items():
        print(f"{name}, seed {seed}: confidences", flush=True)
        found.append(repetition(path, options.confidence, options.cache, only_cached=options.only_cached))
        if name not in ratios and (ratio := time_ratio(path, options.cache, only_cached=options.only_cached)):
            ratios[name] = ratio
    ordered = sorted(found, key=lambda one: (list(options.tasks).index(one.key[0]), one.key[1]))
    for goal in report.write(Results(ordered), ratios, wanted, options.output, time.perf_counter() - start):
        print(
            f"{goal.question}: {goal.value}; must {goal.reached(goal.must)}, aim {goal.reached(goal.aim)}", flush=True
        )


def _told(measured: Measured) -> str:
    about = measured.about
    return (
        f"  accuracy {100 * about['accuracy']['test']:.1f} %, trained in {about['training_seconds']:.0f} s; "
        f"{len(measured):,} rows × {len(measured.feature_names):,} features in {about['scoring_seconds']:.0f} s"
    )


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, action="append", default=[], help="folder with data sets; repeatable")
    parser.add_argument("--cache", type=Path, help="folder for weights and scored rows")
    parser.add_argument("--task", action="append", help=f"only this task, of {', '.join(TASKS)}; repeatable")
    parser.add_argument("--seed", action="append", type=int, help="only this seed; repeatable")
    parser.add_argument("-o", "--output", type=Path, help="folder for decisions.md, decisions.png and results.json")
    parser.add_argument(
        "--confidence", action="append", help="only this verdict or detector, and what it is compared with; repeatable"
    )
    parser.add_argument("--miniature", action="store_true", help="two small tasks that need no data, and one seed")
    parser.add_argument("--only-score", action="store_true", help="train and score, and stop there")
    parser.add_argument("--only-cached", action="store_true", help="fit nothing: report the fits that are cached")
    parser.add_argument("--tables-only", action="store_true", help="write text and figure from results.json")
    options = parser.parse_args(arguments)
    if options.output is None and not options.only_score:
        parser.error("give a folder with -o, or --only-score")
    options.tasks = MINIATURE if options.miniature else TASKS
    options.cache = options.cache or user_cache_path("gradscore") / "decisions"
    options.seed = options.seed or (SEEDS[:1] if options.miniature else SEEDS)
    options.task = options.task or list(options.tasks)
    chosen = options.confidence or [one for one in CONFIDENCES if not (options.miniature and one in SLOW)]
    options.confidence = [*dict.fromkeys((*REFERENCES, *chosen))]
    if strange := [name for name in options.confidence if name not in CONFIDENCES]:
        parser.error(f"there is no confidence {strange[0]!r}: --confidence takes {', '.join(CONFIDENCES)}")
    if unknown := [name for name in options.task if name not in options.tasks]:
        parser.error(f"there is no task {unknown[0]!r}: --task takes {', '.join(options.tasks)}")
    return options


if __name__ == "__main__":
    main()
