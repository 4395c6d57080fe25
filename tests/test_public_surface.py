"""The public names of `gradscore`, and the cost of its import."""

import json
import subprocess
import sys

import pytest

import gradscore

HEAVY = ("torch", "sklearn", "matplotlib", "scipy", "onnx", "onnxruntime", "numba", "pyarrow", "PIL")


def test_public_names():
    assert sorted(gradscore.__all__) == [
        "BuilderError", "Cases", "Evaluation", "GradscoreError", "InputError", "MismatchError", "ModelError",
        "OutputExistsError", "RuntimeUnavailableError", "ScoreTable", "ScoredBatch", "Scorer", "Scores", "Source",
        "UnsupportedOpError", "Verdict", "__version__", "collect", "compare", "evaluate", "explain", "export_classifier",
        "fuse", "learn_reference", "open_source", "prepare", "score_to_parquet", "score_unknowns", "synthesise",
    ]  # fmt: skip


@pytest.mark.parametrize("name", gradscore.__all__)
def test_each_public_name_is_there_and_listed(name):
    assert getattr(gradscore, name) is not None
    assert name in dir(gradscore)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'gradscore' has no attribute 'scorer'"):
        _ = gradscore.scorer


def test_every_error_is_a_gradscore_error():
    errors = [name for name in gradscore.__all__ if name.endswith("Error")]
    assert len(errors) == 8
    assert all(issubclass(getattr(gradscore, name), gradscore.GradscoreError) for name in errors)


@pytest.mark.parametrize("arguments", [None, ["--help"], ["score", "--help"], ["builder", "status", "--json"]])
def test_importing_and_help_load_nothing_heavy(arguments):
    program = "import json, sys\nimport gradscore\n"
    if arguments is not None:
        program += f"from gradscore import cli\nsys.argv = {['gradscore', *arguments]}\n"
        program += "try: cli.main()\nexcept SystemExit as end: assert not end.code\n"
    program += f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_library_needs_no_learning_package():
    program = (
        "import sys\n"
        "from gradscore import Scorer, ScoreTable, Verdict, evaluate, open_source, prepare\n"
        "import gradscore.exporting.export, gradscore.graph.differentiate.builder\n"
        "import gradscore.runs.scoring_run, gradscore.preparing.inspection\n"
        "print([name for name in ('torch', 'sklearn', 'matplotlib', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
