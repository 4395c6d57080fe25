"""What a decoding process does: it answers with the pixels of image files; see `decoding_process`.

Loads no NumPy: the process is there in half the time, and takes half the memory.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from PIL import Image

from gradscore.errors import InputError
from gradscore.inputs.content import SLOW, content_of
from gradscore.inputs.encoded import planes
from gradscore.model.metadata import Preprocessing


def serve() -> None:
    """Be the process: answer until the standard input ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not mix with the pixels
    how = json.loads(requests.readline())
    Image.MAX_IMAGE_PIXELS = how["most_pixels"]
    Image.preinit()  # loads the formats
    preprocessing = Preprocessing(**{name: _hashable(value) for name, value in how["preprocessing"].items()})
    with suppress(BrokenPipeError):  # the parent was killed: nobody is there to be told
        for line in requests:
            header, images = _answer(json.loads(line), preprocessing)
            answers.write(b"".join((json.dumps(header).encode("ascii"), b"\n", *images)))
            answers.flush()
    os._exit(0)  # at once: the parent waits, and nothing is left to tidy up


def _answer(paths: Sequence[str], preprocessing: Preprocessing) -> tuple[dict[str, Any], list[bytes]]:
    cpu, start = time.process_time(), time.perf_counter()
    nothing = bytes(preprocessing.channels * preprocessing.height * preprocessing.width)
    images, problems, slow, before = [], {}, {}, start
    for index, path in enumerate(paths):
        try:
            images.append(planes(content_of(path), preprocessing))
        except InputError as error:
            images.append(nothing)
            problems[index] = str(error)
        now = time.perf_counter()
        if now - before > SLOW:
            slow[index] = now - before
        before = now
    header = {
        "size": sum(map(len, images)),
        "problems": problems,
        "slow": slow,
        "cpu": time.process_time() - cpu,
        "wall": before - start,
    }
    return header, images


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
