"""The benchmarks: small runs, what they refuse, and what a missing peer says."""

import json
from time import sleep

import numpy as np
import pytest
from typer.testing import CliRunner

from gradscore.bench import candidates, growth, scoring
from gradscore.bench import timing as timing_module
from gradscore.bench.chart import check_chart, save_chart
from gradscore.bench.kernel_cases import CASES
from gradscore.bench.kernels import SCIPY, SUM, measure_kernels, scipy_statistics
from gradscore.bench.memory import Memory
from gradscore.bench.scoring import ScoringRow, measure_scoring
from gradscore.bench.tables import growth_table, kernel_table, markdown, scoring_table
from gradscore.bench.timing import Timing, interleaved
from gradscore.bench.workloads import BenchmarkModel, make_ready
from gradscore.cli.bench import bench_app
from gradscore.errors import GradscoreError, InputError

FAST = Timing(0.001, 0.002, 0.1, 7)


def row(candidate, timing=FAST, note="", model="mlp"):
    return ScoringRow(model, 4, candidate, candidates.CANDIDATES[candidate].gives, timing, Memory(10, 20), note)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A workload of a tiny classifier, under the name of a big one."""
    patch = pytest.MonkeyPatch()
    tiny = BenchmarkModel("tiny", "models.digits_cnn:DigitsCNN", (1, 8, 8), 4)
    patch.setitem(__import__("gradscore.bench.workloads", fromlist=["_"]).BENCHMARK_MODELS, "tiny", tiny)
    yield make_ready("tiny", tmp_path_factory.mktemp("tiny"), threads=1)
    patch.undo()


def test_every_task_runs_in_turn():
    order = []
    timings = interleaved({name: lambda name=name: order.append(name) for name in "ab"}, repeats=3, turn=0)
    assert order == list("aabb" * 3)  # the first of each pair warms up
    assert {timing.turns for timing in timings.values()} == {3}


def test_a_short_task_runs_until_its_turn_is_full():
    count = 0

    def short():
        nonlocal count
        count += 1
        sleep(0.002)

    timing = interleaved({"short": short}, repeats=2, turn=0.02)["short"]
    assert 2 * (1 + 2) <= count <= 2 * (1 + 10)
    assert 0.002 <= timing.best < 0.02  # a run's time, not a turn's


def test_a_long_task_is_not_warmed_up_again(monkeypatch):
    monkeypatch.setattr(timing_module, "_SETTLED", 0.001)
    count = 0

    def long():
        nonlocal count
        count += 1
        sleep(0.002)

    interleaved({"long": long}, repeats=4, turn=0)
    assert count == 1 + 4


def test_a_slow_task_rests_after_two_turns():
    ticks = {"slow": 0, "fast": 0}

    def work(name):
        ticks[name] += 1
        if name == "slow":
            np.linalg.svd(np.ones((120, 120)))

    interleaved({name: lambda name=name: work(name) for name in ticks}, repeats=6, patience=1e-4, turn=0)
    assert ticks == {"slow": 2 * 2, "fast": 2 * 6}


def test_timing_of_runs():
    timing = Timing.of([4.0, 1.0, 2.0, 3.0, 5.0])
    assert (timing.best, timing.median, timing.turns) == (1.0, 3.0, 5)
    assert timing.spread == pytest.approx(2 / 3)


def test_kernels_are_measured_beside_their_limit():
    rows = measure_kernels(names=["direct 256 × 16", "conv 16→16 3×3 5²"], backends=["numba"], repeats=2)
    assert [(r.case, r.backend) for r in rows] == [
        ("direct 256 × 16", "numba"),
        ("direct 256 × 16", SUM),
        ("direct 256 × 16", SCIPY),
        ("conv 16→16 3×3 5²", "numba"),
    ]
    assert {r.limit for r in rows} == {"memory read", "sgemm"}
    conv = rows[-1]
    assert conv.rate == pytest.approx(2 * 256 * 16 * 16 * 9 * 9 / 1e9 / conv.timing.best)
    assert 0 < conv.share < 10


@pytest.mark.parametrize("name", CASES)
def test_work_is_what_the_arrays_hold_or_multiply(name):
    case = CASES[name]
    size = sum(array.nbytes for array in case.arrays()) / 1e9
    assert case.work == pytest.approx(size) if case.limit.name == "memory read" else case.work > 0


def test_the_rival_gives_the_same_numbers():
    import gradscore_kernels as kernels

    g = np.random.default_rng(0).normal(size=(3, 50)).astype("f")
    expected = kernels.statistics(kernels.direct_moments(g))
    np.testing.assert_allclose(scipy_statistics(g), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["torch vmap", "torch loop", "BackPACK"])
def test_peers_give_the_same_statistics(small, name):
    candidate = candidates.CANDIDATES[name]
    if not candidate.is_here:
        pytest.skip(candidate.install)
    own = candidates.CANDIDATES["gradscore"].start(small)()
    layers = own.features[:, :-3]
    found = candidate.start(small)()
    assert found.shape == layers.shape
    scale = np.abs(layers).max(0)
    scale[4::8] = scale[5::8]  # the last layer's mean is zero but for rounding
    np.testing.assert_allclose(found / scale, layers / scale, atol=2e-3)


def test_signals_alone_give_labels_and_no_statistics(small):
    own, alone = (candidates.CANDIDATES[name].start(small)() for name in ("gradscore", "signals alone"))
    np.testing.assert_array_equal(own.label, alone.label)
    assert not alone.features.any()


def test_scoring_is_measured_with_its_memory(small, monkeypatch):
    # The process that measures memory imports a fresh table of classifiers, which does not know the tiny one.
    monkeypatch.setattr(scoring, "measure_memory", lambda workload, name: Memory(1, 2))
    rows = measure_scoring(models=["tiny"], candidates=["gradscore", "torch forward+backward"], threads=1, repeats=2)
    assert [r.candidate for r in rows] == ["gradscore", "torch forward+backward"]
    assert all(r.timing.turns == 2 and r.microseconds > 0 for r in rows)


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own(tmp_path):
    from gradscore.bench.memory import measure_memory

    workload = make_ready("mlp", tmp_path, threads=1)
    memory = measure_memory(workload, "gradscore")
    assert 20e6 < memory.ready <= memory.peak < 2e9


def test_an_absent_peer_says_how_to_get_it(small, monkeypatch):
    absent = candidates.Candidate("nothing", "no_such_module", "pip install it", None)
    monkeypatch.setitem(candidates.CANDIDATES, "BackPACK", absent)
    monkeypatch.setattr(scoring, "measure_memory", lambda workload, name: Memory(1, 2))
    (found,) = measure_scoring(models=["tiny"], candidates=["BackPACK"], threads=1, repeats=2)
    assert found.timing is None
    assert found.note == "not installed: pip install it"


def test_a_peer_that_fails_is_a_row(small, monkeypatch):
    def fails(workload):
        raise NotImplementedError("no rule for Foo")

    monkeypatch.setitem(candidates.CANDIDATES, "BackPACK", candidates.Candidate("x", "numpy", "", fails))
    (found,) = measure_scoring(models=["tiny"], candidates=["BackPACK"], threads=1, repeats=2)
    assert found.note == "not possible: no rule for Foo"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: measure_kernels(names=["nonsense"]), "unknown case 'nonsense': choose from conv"),
        (lambda: measure_kernels(backends=["nonsense"]), "unknown back end 'nonsense'"),
        (lambda: measure_scoring(candidates=["nonsense"]), "unknown way 'nonsense': choose from gradscore"),
        (lambda: measure_scoring(models=["nonsense"]), "unknown benchmark model 'nonsense': choose from paper-cnn"),
    ],
)
def test_unknown_names_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_tables_hold_ratios_and_notes():
    rows = [
        row("gradscore"),
        row("torch vmap", Timing(0.004, 0.005, 0.1, 7)),
        row("BackPACK", None, "not installed: x"),
    ]
    headings, cells = scoring_table(rows)
    assert len(headings) == len(cells[0]) == len(cells[2])
    assert [line[6] for line in cells] == ["1.00", "4.00", ""]
    assert cells[2][3] == "not installed: x"
    assert markdown((headings, cells)).count("\n") == 5
    assert kernel_table([])[1] == []


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_chart_is_written(tmp_path, suffix):
    path = tmp_path / f"chart{suffix}"
    save_chart([row("gradscore"), row("torch vmap"), row("gradscore", model="paper-cnn"), row("BackPACK", None)], path)
    assert path.read_bytes()[:5] in (b"<?xml", b"\x89PNG\r")


def test_a_chart_of_another_kind_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"the file name must end in \.png or \.svg"):
        check_chart(tmp_path / "chart.gif")


def test_models_that_are_not_at_hand_are_said(tmp_path, monkeypatch):
    gone = BenchmarkModel("gone", "no_such_models:make", (3,), 2)
    monkeypatch.setitem(__import__("gradscore.bench.workloads", fromlist=["_"]).BENCHMARK_MODELS, "gone", gone)
    with pytest.raises(GradscoreError, match="run it from a checkout"):
        make_ready("gone", tmp_path, threads=1)


def test_models_need_torch(tmp_path, monkeypatch):
    monkeypatch.setattr("gradscore.bench.workloads.find_spec", lambda name: None)
    with pytest.raises(GradscoreError, match=r'torch modules: pip install "gradscore\[export\]"'):
        make_ready("mlp", tmp_path, threads=1)


def test_command_prints_json():
    run = CliRunner().invoke(
        bench_app, ["kernels", "--case", "direct 256 × 16", "--backend", "numba", "--repeats", "2", "--json"]
    )
    assert run.exit_code == 0, run.output
    content = json.loads(run.stdout)
    assert content["machine"]["threads"] == 1
    assert content["kernels"][0]["timing"]["turns"] == 2


def test_command_prints_a_table():
    run = CliRunner().invoke(
        bench_app, ["kernels", "--case", "direct 256 × 16", "--backend", "numba", "--repeats", "2"]
    )
    assert run.exit_code == 0, run.output
    assert "memory read" in run.stdout


def test_growth_is_measured_call_by_call(small, monkeypatch):
    monkeypatch.setattr(growth, "measure_memory", lambda workload, name: Memory(10, 10 + len(workload.batch)))
    rows = growth.measure_growth("tiny", samples=(3, 12), threads=1, repeats=2)
    assert [(row.samples, row.added, row.timing.turns) for row in rows] == [(3, 3, 2), (12, 12, 2)]
    features = len(candidates.CANDIDATES["gradscore"].start(small)().feature_names)
    assert [row.scores for row in rows] == [8 * (1 + features) * count for count in (3, 12)]
    _, cells = growth_table(rows)
    assert [line[0] for line in cells] == ["3", "12"]
