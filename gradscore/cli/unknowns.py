"""The command `gradscore unknowns`, and the unknown inputs that `fit` makes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradscore.cli.options import DetectorReferenceFile, ExtraFeatures, Output, Overwrite, Transposed, all_parts, parts
from gradscore.errors import InputError

if TYPE_CHECKING:
    from gradscore.scoring.scorer import Scorer
    from gradscore.tables.table import ScoreTable

# Commands import what they need when they run, so that `--help` stays fast.
# ruff: noqa: PLC0415

KnownInputs = Annotated[
    list[str] | None,
    typer.Option("--known", help="Inputs of known classes, from which some kinds are made. Repeatable."),
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(unknowns)


def unknowns(
    model: Annotated[Path, typer.Argument(help="A scoring model.")],
    output: Output,
    kind: Annotated[
        str,
        typer.Option(
            help="uniform, normal, permutation, patches, blur, inversion or mixup; marginals for numbers; tokens, shuffle "
            "or splice for token ids."
        ),
    ] = "uniform",
    count: Annotated[int, typer.Option(min=1, help="Number of inputs to make.")] = 200,
    known: KnownInputs = None,
    idx_transposed: Transposed = False,
    features: ExtraFeatures = None,
    reference: DetectorReferenceFile = None,
    seed: Annotated[int, typer.Option(help="Seed. The same seed gives the same inputs.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Make inputs of no known class, and write their score table (.parquet) or themselves (.npz).

    Example: gradscore unknowns scoring.onnx --kind uniform --count 200 -o uniform.parquet
    """
    from gradscore.files.writing import refuse_existing
    from gradscore.scoring.scorer import Scorer

    writers = {".parquet": _write_scored, ".npz": _write_inputs}
    if output.suffix not in writers:
        raise InputError(f"{output} must end in .parquet (a score table) or .npz (the inputs themselves)")
    refuse_existing(output, overwrite=overwrite)
    scorer = Scorer.load(model, features=all_parts(features), reference=reference)
    inputs = _known_inputs(scorer, known, idx_transposed, seed)
    writers[output.suffix](scorer, output, kind, count, inputs, seed, overwrite)
    typer.echo(f"made {count:,} inputs of no known class ({kind}): {output}", err=True)


def made_tables(
    model: Path | None,
    count: int,
    kinds: str | None,
    known: list[str] | None,
    idx_transposed: bool,
    seed: int,
    features: Sequence[str],
    reference: Path | None = None,
) -> "dict[str, ScoreTable]":
    """Make and score unknown inputs for `fit`, with these extra features: of each kind named, or of all that suit.

    Without known inputs, these are the kinds that need none.
    """
    from gradscore.scoring.scorer import Scorer
    from gradscore.unknowns.kinds import KINDS
    from gradscore.unknowns.synthesis import kinds_for, score_unknowns

    if model is None and (known or kinds):
        raise InputError("--known and --noise make and score unknown inputs: give the scoring model with --model")
    if model is None or not count:
        return {}
    with Scorer.load(model, features=features, reference=reference) as scorer:
        inputs = _known_inputs(scorer, known, idx_transposed, seed)
        suiting = [kind for kind in kinds_for(scorer.metadata) if inputs is not None or not KINDS[kind].needs_known]
        names = parts(kinds) or suiting
        if not names:
            raise InputError(
                "every kind of unknown input for this model is made from known ones: give some with --known"
            )
        return {f"made by {name}": score_unknowns(scorer, name, count, known=inputs, seed=seed) for name in names}


def _write_scored(
    scorer: "Scorer", output: Path, kind: str, count: int, known: Any, seed: int, overwrite: bool
) -> None:
    import pyarrow.parquet as pq

    from gradscore.files.writing import replacing
    from gradscore.unknowns.synthesis import score_unknowns

    table = score_unknowns(scorer, kind, count, known=known, seed=seed)
    with replacing(output, overwrite=overwrite) as part:
        pq.write_table(table.table, part, compression="zstd")


def _write_inputs(
    scorer: "Scorer", output: Path, kind: str, count: int, known: Any, seed: int, overwrite: bool
) -> None:
    import numpy as np

    from gradscore.files.writing import replacing
    from gradscore.unknowns.synthesis import make_unknowns

    inputs = make_unknowns(scorer, kind, count, known=known, seed=seed)
    with replacing(output, overwrite=overwrite) as part, part.open("wb") as file:
        np.savez_compressed(file, images=inputs)


def _known_inputs(scorer: "Scorer", paths: list[str] | None, idx_transposed: bool, seed: int) -> Any:
    from gradscore.inputs.sources import open_source
    from gradscore.unknowns.synthesis import read_known

    if not paths:
        return None
    known = read_known(open_source(paths, idx_transposed=idx_transposed), scorer.metadata, seed=seed)
    if known.unreadable:
        typer.echo(f"{known.unreadable:,} known inputs cannot be read and are left out", err=True)
    return known.inputs
