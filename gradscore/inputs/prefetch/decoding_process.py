"""A process that decodes image files, as its parent sees it, and their protocol over pipes.

The parent's first line is JSON and says how to decode. Each further line is a JSON list of paths. The process answers
each list with a line of JSON, followed by the pixels of all images. It ends when its standard input ends, so it never
outlives its parent.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from threading import Lock
from typing import IO, Any

import numpy as np
from PIL import Image

from gradscore.inputs.prefetch.found import Block
from gradscore.model.preprocessing import Preprocessing

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from gradscore.inputs.prefetch.decoding_service import serve; serve()"
_PIPE = 1 << 20  # bytes; the most that Linux allows without privileges


@dataclass(frozen=True)
class Answer:
    """The result of decoding some image files.

    Attributes
    ----------
    found
        Pixels, and error messages of the files that could not be decoded.
    slow
        Seconds that each slow file took, by its place in the request.
    cpu, wall
        CPU seconds and elapsed seconds for all files together.
    """

    found: Block
    slow: Mapping[int, float]
    cpu: float
    wall: float


def can_start() -> bool:
    """Return whether this Python can start another. A frozen program would start itself instead."""
    return bool(sys.executable) and not hasattr(sys, "frozen")


class DecodingProcess:
    """Decodes image files for any thread.

    The next request is sent while the process still works on one.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._asking, self._answering = Lock(), Lock()
        self._shape = preprocessing.channels, preprocessing.height, preprocessing.width
        command = [sys.executable, "-c", _START, json.dumps(sys.path)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, process_group=0)  # noqa: S603 - its own group, so that Ctrl-C does not reach it
        try:
            for end in self._pipes():
                _widen(end)
            self._ask({"preprocessing": asdict(preprocessing), "most_pixels": Image.MAX_IMAGE_PIXELS})
        except BaseException:
            self.close()
            raise

    def read(self, paths: Sequence[str]) -> Answer:
        """Decode files, in order.

        Raises
        ------
        OSError
            The process has ended, and its pipe is closed.
        ValueError
            The process ended before its answer was complete.
        """
        with self._asking:
            self._ask(paths)
            self._answering.acquire()  # taken while `_asking` is held, so that answers are read in the order of the requests
        try:
            _, output = self._pipes()
            answer = json.loads(output.readline())
            content = output.read(answer["size"])
        finally:
            self._answering.release()
        block = np.frombuffer(content, np.uint8).reshape(len(paths), *self._shape)
        return Answer(
            Block(block, _by_place(answer["problems"])), _by_place(answer["slow"]), answer["cpu"], answer["wall"]
        )

    def close(self) -> None:
        """End the process."""
        for pipe in self._pipes():
            try:
                pipe.close()
            except OSError:  # flushing a request to a process that has ended
                continue
        self._process.wait()

    def _ask(self, request: object) -> None:
        pipe, _ = self._pipes()
        pipe.write(json.dumps(request).encode("ascii") + b"\n")
        pipe.flush()

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018 - Popen was called with pipes
        return self._process.stdin, self._process.stdout


def _widen(pipe: IO[bytes]) -> None:
    """Enlarge a pipe if the system can.

    A pipe should hold a whole answer, because writing to a full pipe blocks.
    """
    with suppress(OSError, ImportError, AttributeError):
        from fcntl import F_SETPIPE_SZ, fcntl  # noqa: PLC0415 - only Linux has it

        fcntl(pipe, F_SETPIPE_SZ, _PIPE)


def _by_place(found: Mapping[str, Any]) -> dict[int, Any]:
    return {int(index): value for index, value in found.items()}
