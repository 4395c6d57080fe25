"""Every command of gradscore on the demo's files: exit code, what it prints on stdout, and what the files that it writes mean.

What goes to stderr is for people and is left out.
"""

import itertools
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tools.golden.meaning import Meaning

GRADSCORE = Path(sys.executable).with_name("gradscore")
DEMO = (
    "classifier.onnx", "scoring.onnx", "fit.parquet", "test.parquet", "noise-fit.parquet", "noise-test.parquet",
    "verdict.onnx", "verdicts.parquet",
)  # fmt: skip
WRITES = ("-o", "--output", "--png", "--triton")
EVERY_FEATURE = "--features max_logit,energy,margin,gradnorm,activations"
BOTH = "fit.parquet --unknown noise-fit.parquet:200"
RICH = "out/fit-all.parquet --unknown out/noise-fit-all.parquet"
TESTED = "out/test-all.parquet --unknown out/noise-test-all.parquet"

# In this order, from the recording's folder; what one writes a later one may read.
COMMANDS = f"""
export models.digits_cnn:DigitsCNN --weights weights.pt --input-shape 1x8x8 -o out/plain.onnx
export models.digits_cnn:DigitsCNN --weights weights.pt --input-shape 1x8x8 --exporter torchscript -o out/traced.onnx
export models.digits_cnn:DigitsCNN --weights weights.pt --input-shape 1x8x8 --fold-batch-norm -o out/folded.onnx
export models.benchmark:mlp --input-shape 784 -o out/mlp.onnx
export models.digits_cnn:DigitsCNN -o out/refused.onnx
prepare out/traced.onnx -o out/traced.scoring.onnx --class-names inputs/names.txt
prepare classifier.onnx -o out/ad.scoring.onnx --engine onnx-ad
prepare classifier.onnx -o out/images.scoring.onnx --scale 0.01 --mean 0.5 --std 0.25 --color convert --resize 10 \
--crop center --interpolation bicubic
prepare out/mlp.onnx -o out/mlp.scoring.onnx --external-data
prepare out/mlp.onnx -o out/mlp-inside.scoring.onnx
prepare scoring.onnx -o out/refused.scoring.onnx
prepare classifier.onnx -o out/refused.scoring.onnx --engine abacus
inspect scoring.onnx --json
inspect scoring.onnx
inspect out/ad.scoring.onnx --json
inspect out/images.scoring.onnx --json
inspect out/mlp.scoring.onnx --json
inspect missing.onnx --json
score scoring.onnx images/fit -o out/fit-all.parquet {EVERY_FEATURE} --json
score scoring.onnx images/test -o out/test-all.parquet {EVERY_FEATURE} --threads 1
score scoring.onnx images/noise-fit -o out/noise-fit-all.parquet {EVERY_FEATURE}
score scoring.onnx images/noise-test -o out/noise-test-all.parquet {EVERY_FEATURE} --backend reference
score scoring.onnx images/test -o out/numba.parquet --backend numba
score scoring.onnx images/test -o out/reference.parquet --backend reference
score scoring.onnx images/test -o out/graph.parquet --backend graph --features energy,margin
score scoring.onnx images/test -o out/one-thread.parquet --threads 1 --batch-size 100
score scoring.onnx images/test -o out/single.parquet --precision float32
score scoring.onnx images/test -o out/test.arrow
score scoring.onnx images/test -o out/test.csv
score scoring.onnx images/test -o out/test.jsonl
score scoring.onnx inputs/pixels.npy inputs/broken -o out/shards --batch-size 8 --shard-rows 16 {EVERY_FEATURE}
score scoring.onnx inputs/pixels.npy inputs/broken -o out/shards --batch-size 8 --shard-rows 16 {EVERY_FEATURE} \
--resume --json
score scoring.onnx inputs/pixels.npy -o out/shards --resume
score scoring.onnx inputs/pixels.npy -o out/shards
score scoring.onnx images/test -o -
score scoring.onnx images/test -o out/dry.parquet --dry-run --json
score scoring.onnx images/test -o out/limited.parquet --limit 100 --json
score scoring.onnx images/test images/noise-test -o out/two-folders.parquet
score scoring.onnx inputs/broken -o out/broken.parquet --json
score scoring.onnx @inputs/list.txt -o out/list.parquet
score scoring.onnx inputs/images.zip -o out/zip.parquet
score scoring.onnx inputs/pixels.npy -o out/npy.parquet
score scoring.onnx inputs/pixels.npz -o out/npz.parquet
score scoring.onnx fit.parquet -o out/refused.parquet
score out/ad.scoring.onnx images/test -o out/ad.parquet
score out/images.scoring.onnx images/test inputs/broken -o out/images.parquet
score out/traced.scoring.onnx images/test -o out/traced.parquet
score out/mlp.scoring.onnx inputs/rows.npy -o out/mlp.parquet
verify out/test-all.parquet images/test --json
verify out/shards inputs/pixels.npy inputs/broken --json
verify out/shards images/fit --json
verify out/broken.parquet --json
fit {BOTH} -o out/lasso.onnx --json
fit {BOTH} -o out/glm.onnx --method glm --features 'fc*,entropy' --json
fit {BOTH} -o out/ridge.onnx --method ridge --calibrate platt --target-precision 0.98 --json
fit {BOTH} -o out/elastic-net.onnx --method elastic-net --features '*.l2,*.skewness,residual' --folds 3 --json
fit {BOTH} -o out/threshold.onnx --method threshold --features entropy --calibrate isotonic --json
fit {RICH} -o out/nn.onnx --method nn --ensemble 2 --max-fpr 0.1 --json
fit {RICH} -o out/boosting.onnx --method boosting --target-recall 0.9 --json
fit {RICH} -o out/quantile.onnx --transform quantile --cost-fp 5 --cost-fn 1 --seed 3 --json
fit {BOTH} -o out/fusible-nn.onnx --method nn --json
fit {RICH} -o out/heads.onnx --features 'fc2.l2,conv1.skewness,energy,margin,max_logit' --json
fit {BOTH} -o out/risk.onnx --max-risk 0.05 --calibration test.parquet --calibration-unknown noise-test.parquet --json
fit {BOTH} -o out/fpr-risk.onnx --max-fpr-risk 0.2 --calibration test.parquet \
--calibration-unknown noise-test.parquet:150 --json
fit fit.parquet -o out/made.onnx --with-noise 100 --noise uniform,patches --known images/fit --model scoring.onnx --json
fit fit.parquet -o out/labelled.onnx --unknown noise-fit.parquet --labels inputs/labels.csv --json
fit {BOTH} -o out/refused.onnx --max-risk 0.05
fit {BOTH} -o out/refused.onnx --method oracle
apply test.parquet --verdict out/lasso.onnx -o out/applied-lasso.parquet --json
apply out/test-all.parquet --verdict out/nn.onnx -o out/applied-nn.parquet --json
apply out/noise-test-all.parquet --verdict out/boosting.onnx -o out/applied-boosting.parquet --json
apply out/broken.parquet --verdict out/lasso.onnx -o out/applied-broken.parquet --json
apply out/test-all.parquet --verdict out/lasso.onnx -o out/refused.parquet
evaluate test.parquet --verdict verdict.onnx
evaluate test.parquet --unknown noise-test.parquet --verdict out/lasso.onnx --verdict out/ridge.onnx --bootstrap 50 --json
evaluate {TESTED} --verdict out/nn.onnx --verdict out/boosting.onnx --verdict out/quantile.onnx --json
evaluate {TESTED} --target known --convention openood --json
evaluate {TESTED} --target misclassified --convention torch-uncertainty --json
explain test.parquet --unknown noise-test.parquet:100 --verdict out/lasso.onnx --json
explain {TESTED} --verdict out/boosting.onnx --repeats 2 --seed 1 --json
unknowns scoring.onnx --kind uniform --count 50 -o out/uniform.parquet
unknowns scoring.onnx --kind uniform --count 50 -o out/uniform.npz
unknowns scoring.onnx --kind normal --count 50 --seed 2 -o out/normal.npz
unknowns scoring.onnx --kind permutation --count 50 --known images/test -o out/permutation.npz
unknowns scoring.onnx --kind patches --count 50 --known images/test -o out/patches.npz
unknowns scoring.onnx --kind blur --count 50 --known images/test -o out/blur.npz
unknowns scoring.onnx --kind inversion --count 50 --known images/test -o out/inversion.npz
unknowns scoring.onnx --kind mixup --count 50 --known images/test -o out/mixup.npz
unknowns scoring.onnx --kind mixup --count 50 --known images/test -o out/mixup.parquet {EVERY_FEATURE}
unknowns out/mlp.scoring.onnx --kind permutation --count 20 --known inputs/rows.npy -o out/rows.npz
report test.parquet --unknown noise-test.parquet --verdict out/lasso.onnx --verdict out/ridge.onnx --images images/test \
--images noise-test=images/noise-test --png out/figures --bootstrap 50 -o out/report.html --json
report {TESTED} -o out/plain-report.html --bootstrap 0 --convention openood --json
fuse scoring.onnx -o out/bare.fused.onnx
fuse scoring.onnx -o out/features.fused.onnx --features 'fc*,all.l2'
fuse scoring.onnx --verdict out/lasso.onnx -o out/lasso.fused.onnx --features '*' --triton out/repository
fuse scoring.onnx --verdict out/nn.onnx -o out/nn.fused.onnx
fuse scoring.onnx --verdict out/fusible-nn.onnx -o out/fusible-nn.fused.onnx
fuse scoring.onnx --verdict out/heads.onnx -o out/heads.fused.onnx --features residual
fuse scoring.onnx --verdict out/threshold.onnx -o out/threshold.fused.onnx
fuse scoring.onnx --verdict out/lasso.onnx -o out/device.fused.onnx --provider CUDAExecutionProvider
fuse out/images.scoring.onnx -o out/images.fused.onnx
fuse out/mlp.scoring.onnx -o out/mlp.fused.onnx
fuse scoring.onnx --verdict out/lasso.onnx -o out/refused.fused.onnx --provider AbacusProvider
inspect out/lasso.fused.onnx --json
inspect out/lasso.fused.onnx
builder status
"""
HELP = (
    "", "export", "prepare", "inspect", "score", "verify", "fit", "apply", "evaluate", "explain", "unknowns", "report",
    "fuse", "doctor", "builder", "builder install", "builder status", "bench", "bench kernels", "bench scoring",
)  # fmt: skip
FLAG = re.compile(r"^ +((?:-\w, )?--?[\w-]+)(?:,? +(?:--[\w-]+ +)?(TEXT|INTEGER|FLOAT|PATH))?", re.MULTILINE)


def record(folder: Path, meaning: Meaning, root: Path) -> dict[str, Any]:
    """Run every command on what `tools.demo` has written into the folder; return what each means."""
    _write_inputs(folder)
    (folder / "out").mkdir()
    things: dict[str, Any] = {f"demo: {name}": meaning.of(folder / name) for name in DEMO}
    for line in COMMANDS.strip().splitlines():
        things[f"gradscore {line}"] = _run(shlex.split(line), folder, meaning, root)
    for name in HELP:
        shown = run([*name.split(), "--help"], folder, root).stdout.decode()
        things[f"gradscore {name} --help"] = [" ".join(filter(None, match)) for match in FLAG.findall(shown)]
    return things


def run(arguments: list[str], folder: Path, root: Path) -> subprocess.CompletedProcess[bytes]:
    """Run one command in the folder; modules of the checkout can be exported."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run([GRADSCORE, *arguments], cwd=folder, env=environment, capture_output=True, check=False)


def _run(arguments: list[str], folder: Path, meaning: Meaning, root: Path) -> dict[str, Any]:
    done = run(arguments, folder, root)
    outputs = [value for flag, value in itertools.pairwise(arguments) if flag in WRITES]
    files = {name: meaning.of(folder / name) for name in outputs if name != "-"}
    printed = meaning.of_stream(done.stdout) if "-" in outputs else meaning.of_text(done.stdout.decode())
    return {"exit code": done.returncode, "printed": printed, "files": files}


def _write_inputs(folder: Path) -> None:
    """Write what the demo has no example of: other kinds of inputs, odd and broken images, labels and names in files."""
    inputs, rng = folder / "inputs", np.random.default_rng(5)
    (inputs / "broken").mkdir(parents=True)
    pixels = rng.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    np.save(inputs / "pixels.npy", pixels)
    np.savez(inputs / "pixels.npz", images=pixels[:20])
    np.save(inputs / "rows.npy", rng.standard_normal((30, 784)).astype(np.float32))
    Image.fromarray(pixels[0, 0]).save(inputs / "broken/a-good.png")
    (inputs / "broken/b-text.png").write_bytes(b"no image")
    Image.fromarray(np.kron(pixels[1, 0], np.ones((3, 2), np.uint8))).save(inputs / "broken/c-large.png")
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(inputs / "broken/d-colours.png")
    images = sorted((folder / "images/test").rglob("*.png"))
    (inputs / "list.txt").write_text("".join(f"{path.relative_to(folder)}\n" for path in images[::5]), encoding="utf-8")
    with zipfile.ZipFile(inputs / "images.zip", "w") as archive:
        for path in images[:50]:
            archive.write(path, path.relative_to(folder / "images"))
    (inputs / "names.txt").write_text("".join(f"digit {number}\n" for number in range(10)), encoding="utf-8")
    fitting = sorted((folder / "images/fit").rglob("*.png"))
    rows = (f"{path.relative_to(folder / 'images/fit')},{path.parent.name}\n" for path in fitting)
    (inputs / "labels.csv").write_text("id,label\n" + "".join(rows), encoding="utf-8")
