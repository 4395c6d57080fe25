"""Measure verdicts and detectors on real tasks.

Usage: python -m tools.benchmark_decisions --data-dir DIR --cache DIR [--task NAME] [--seed N] --only-score

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
from tools.decisions.tasks import TASKS

SEEDS = (0, 1, 2)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    options = _options(arguments)
    torch.set_num_threads(1)
    sources = Pictures(options.data_dir)
    for seed in options.seed or SEEDS:
        for name in options.task or TASKS:
            print(f"{name}, seed {seed}", flush=True)
            about = Measured.read(scored(name, TASKS[name], sources, seed, options.cache)).about
            print(f"  accuracy {100 * about['accuracy']['test']:.1f} %, trained in {about['training_seconds']:.0f} s, "
                  f"{about['scored_rows']:,} rows scored in {about['scoring_seconds']:.0f} s", flush=True)  # fmt: skip


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, action="append", default=[], help="folder with data sets; repeatable")
    parser.add_argument("--cache", type=Path, default=user_cache_path("gradscore") / "decisions")
    parser.add_argument("--task", action="append", choices=TASKS, help="only this task; repeatable")
    parser.add_argument("--seed", action="append", type=int, help="only this seed; repeatable")
    parser.add_argument("--only-score", action="store_true", help="train and score, and stop there")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
