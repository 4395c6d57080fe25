"""The program of a decoding process: it answers requests with the pixels of image files.

`decoding_process` describes the protocol. This module does not load NumPy, which halves the process's start time and
memory.
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
from gradscore.model.json_records import as_fields
from gradscore.model.preprocessing import Preprocessing


def serve() -> None:
    """Answer requests until the standard input ends, then end the process."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output printed by a library must not mix with the pixels
    how = json.loads(requests.readline())
    Image.MAX_IMAGE_PIXELS = how["most_pixels"]
    Image.preinit()  # load Pillow's formats before the first request
    preprocessing = Preprocessing(**as_fields(how["preprocessing"]))
    with suppress(BrokenPipeError):  # the parent was killed: there is no one to answer
        for line in requests:
            header, images = _answer(json.loads(line), preprocessing)
            answers.write(b"".join((json.dumps(header).encode("ascii"), b"\n", *images)))
            answers.flush()
    os._exit(0)  # at once, without the interpreter's clean-up: the parent waits, and nothing needs it


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
