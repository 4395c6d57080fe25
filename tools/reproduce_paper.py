"""Reproduce the study of Oberdiek, Rottmann and Gottschalk (2018), and write its tables and figures.

Usage: python tools/reproduce_paper.py --data-dir DIR -o tools/results/paper/. DIR holds the files of the data sets, see
tools/paper/concepts.py. Without it, scikit-learn's digits are used. Every step is cached, so a killed run can resume.
With --tables-only nothing is run: the tables in tables.md are written again from results.json.
"""

import argparse
import sys
from pathlib import Path

from gradscore_kernels import usable_cores
from platformdirs import user_cache_path

ROOT = Path(__file__).parent.parent


def main(arguments: list[str] | None = None) -> None:
    """Run the study."""
    options = _options(arguments)
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))  # a script's path has its own folder, but not the parent with models/ and tools/
    if options.tables_only:
        from tools.paper.again import rewrite

        rewrite(options.output)
        return
    from tools.paper.report import reproduce

    reproduce(
        options.data_dir,
        options.output,
        cnns=options.cnns,
        networks=options.networks,
        miniature=options.miniature,
        cache=options.cache or user_cache_path("gradscore") / "paper",
        jobs=options.jobs,
    )


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, help="folder with the data sets; default: scikit-learn's digits")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for tables and figures")
    parser.add_argument(
        "--tables-only", action="store_true", help="only write the tables again, from results.json in the output folder"
    )
    parser.add_argument("--cnns", type=int, default=10, help="repetitions, each with its own split and CNN")
    parser.add_argument("--networks", type=int, default=5, help="neural meta-classifiers per CNN")
    parser.add_argument(
        "--miniature", action="store_true", help="few pictures and epochs, to check that everything works"
    )
    parser.add_argument("--cache", type=Path, help="folder for weights, scores and results of single fits")
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="repetitions that run at a time")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
