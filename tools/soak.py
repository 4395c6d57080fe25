"""Soak test: score many generated images, and record the memory of the process.

Usage: python -m tools.soak SCORING_MODEL OUTPUT [COUNT]. The model must take images. COUNT is 1,000,000 by default. The
last line of the output is one JSON object.
"""

import io
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gradscore import Scorer, Source
from gradscore.inputs.entries import Entry, ImageEntry, Listing
from gradscore.runs.scoring_run import score_to_parquet

PICTURES = 1000  # different images, encoded once
WARM = 0.1  # fraction of the run after which memory should not grow


@dataclass(frozen=True)
class Generated(ImageEntry):
    """A generated image in memory."""

    id: str
    png: bytes

    def content(self) -> bytes:
        """Return the encoded image."""
        return self.png


class Pictures(Listing):
    """A listing of `count` generated images. Every thousandth is broken."""

    def __init__(self, count: int, shape: tuple[int, int, int]) -> None:
        self._count = count
        rng = np.random.default_rng(0)
        self._pngs = [_png(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(PICTURES)]
        self._pngs[PICTURES // 2] = b"broken"

    def __len__(self) -> int:
        return self._count

    def entry(self, index: int) -> Entry:
        """Return the entry of one image."""
        return Generated(f"{index:09d}.png", self._pngs[index % PICTURES])


def main() -> None:
    """Score the images, record the memory, and print the result."""
    model, out = map(Path, sys.argv[1:3])
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 1_000_000
    held: list[float] = []
    done = 0

    def watch(inputs: int) -> None:
        nonlocal done
        if (done + inputs) * 100 // count > done * 100 // count:
            held.append(_resident_mb())
        done += inputs

    start = time.perf_counter()
    with Scorer.load(model) as scorer:
        how = scorer.metadata.preprocessing
        source = Source(Pictures(count, (how.height, how.width, how.channels)))
        summary = score_to_parquet(scorer, source, out, overwrite=True, progress=watch)
    warm = held[int(len(held) * WARM) :]
    report = {
        "inputs": count, "failed": summary.failed, "seconds": round(time.perf_counter() - start, 1),
        "warm_mb": round(warm[0], 1), "least_mb": round(min(warm), 1), "most_mb": round(max(warm), 1),
        "end_mb": round(warm[-1], 1), "after_mb": round(_resident_mb(), 1),
    }  # fmt: skip
    sys.stdout.write(json.dumps(report) + "\n")


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _resident_mb() -> float:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4096 / 1e6


if __name__ == "__main__":
    main()
