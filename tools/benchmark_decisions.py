"""Measure verdicts and detectors on real tasks.

Usage: python -m tools.benchmark_decisions --data-dir DIR --cache DIR [--task NAME] [--seed N] [--miniature] --only-score

The folders of --data-dir hold the files of the data sets, see tools/decisions/pictures.py and mails.py. Every repetition is
cached, so a killed run continues where it was.
"""

import argparse
from pathlib import Path

import torch
from platformdirs import user_cache_path

from tools.decisions.measured import Measured
from tools.decisions.pictures import Pictures
from tools.decisions.scoring import scored
from tools.decisions.tasks import MINIATURE, TASKS

SEEDS = (0, 1, 2)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    options = _options(arguments)
    torch.set_num_threads(1)  # a classifier's weights then do not depend on the machine's cores
    sources = Pictures(options.data_dir)
    for seed in options.seed:
        for name in options.task:
            print(f"{name}, seed {seed}", flush=True)
            measured = Measured.read(scored(name, options.tasks[name], sources, seed, options.cache))
            print(_told(measured), flush=True)


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
    parser.add_argument("--miniature", action="store_true", help="two small tasks that need no data, and one seed")
    parser.add_argument("--only-score", action="store_true", help="train and score, and stop there")
    options = parser.parse_args(arguments)
    options.tasks = MINIATURE if options.miniature else TASKS
    options.cache = options.cache or user_cache_path("gradscore") / "decisions"
    options.seed = options.seed or (SEEDS[:1] if options.miniature else SEEDS)
    options.task = options.task or list(options.tasks)
    if unknown := [name for name in options.task if name not in options.tasks]:
        parser.error(f"there is no task {unknown[0]!r}: --task takes {', '.join(options.tasks)}")
    return options


if __name__ == "__main__":
    main()
