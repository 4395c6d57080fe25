"""The paper's figures stand beside ours, and the committed tables follow from the committed results."""

import json
import shutil
from pathlib import Path

import pytest

from gradscore import InputError
from tools.paper import reported
from tools.paper.again import rewrite, sections
from tools.paper.averages import Averages, Mean
from tools.paper.beside import Cell, beside, cells

RESULTS = Path(__file__).parents[2] / "tools/results/paper"


@pytest.fixture(scope="module")
def whole():
    return json.loads((RESULTS / "results.json").read_text(encoding="utf-8"))


def test_the_committed_tables_follow_from_the_committed_results(whole):
    text = (RESULTS / "tables.md").read_text(encoding="utf-8")
    assert text.endswith("\n".join(["", *sections(Averages.of(whole), whole["known"])]).rstrip() + "\n")


def test_writing_the_tables_again_changes_nothing(tmp_path):
    for name in ("results.json", "tables.md"):
        shutil.copy(RESULTS / name, tmp_path)
    rewrite(tmp_path)
    assert (tmp_path / "tables.md").read_bytes() == (RESULTS / "tables.md").read_bytes()


def test_tables_alone_need_the_results_of_a_run(tmp_path):
    with pytest.raises(InputError, match="run the study without --tables-only"):
        rewrite(tmp_path)
    shutil.copy(RESULTS / "results.json", tmp_path)
    (tmp_path / "tables.md").write_text("nothing\n", encoding="utf-8")
    with pytest.raises(InputError, match="has no tables"):
        rewrite(tmp_path)


def test_the_reported_figures_are_whole_and_give_the_gains_in_the_papers_text():
    shape = {
        number: [(len(rows), {len(figures) for figures in rows.values()}) for rows in table.rows.values()]
        for number, table in reported.TABLES.items()
    }
    assert shape == {1: [(7, {4})] * 3, 2: [(6, {4})] * 3, 3: [(6, {7})] * 3}
    third = reported.TABLES[3]
    for metric, gain in (("auroc", reported.ALL_AUROC_GAIN), ("aupr_out", reported.ALL_AUPR_OUT_GAIN)):
        change = third.figure("+ Omniglot", "all", metric) - third.figure("max softmax", "all", metric)
        assert change == pytest.approx(gain, abs=1e-9)


def test_every_cell_of_the_paper_is_there_and_only_letters_have_none_of_ours(whole):
    found = cells(Averages.of(whole))
    assert len(found) == 84 + 72 + 126
    assert {cell.concept for cell in found if cell.ours is None} == {"EMNIST letters"}
    one = next(cell for cell in found if (cell.table, cell.row, cell.concept) == (3, "+ CIFAR10", "all"))
    assert (one.metric, one.paper, f"{one.ours.mean:.2f}") == ("auroc", 96.36, "97.83")


@pytest.mark.parametrize(
    ("ours", "text"),
    [
        (Mean(97.53, 0.15), "97.82 → 97.53 (-0.29)"),
        (Mean(97.53, 0.14), "97.82 → 97.53 **(-0.29)**"),
        (Mean(97.819, 0.0), "97.82 → 97.82 (+0.00)"),
        (None, "97.82 → –"),
    ],
)
def test_a_difference_beyond_two_standard_deviations_is_bold(ours, text):
    assert str(Cell(1, "max softmax", "all", "auroc", 97.82, ours)) == text


def test_the_section_counts_and_explains_every_difference(whole):
    results = Averages.of(whole)
    differing = [cell for cell in cells(results) if cell.differs]
    lines = list(beside(results, reasons=True))
    start = lines.index("| where | cells beyond the spread | differences in AUROC | likely reason |")
    counts = [int(line.split(" | ")[1]) for line in lines[start + 2 : lines.index("", start)]]
    assert sum(counts) == len(differing)
    assert sum(line.count("**(") for line in lines) == len(differing)
    assert sum(line[:2] in ("1.", "2.", "3.", "4.", "5.") for line in lines) == 5
    assert "Likely reasons" not in "\n".join(beside(results, reasons=False))
