"""A process that decodes image files, and what it and its parent say to one another through pipes.

The first line is JSON and says how to decode. Then each line of JSON with paths is answered by a line of JSON, and the
pixels of all images one after the other. The process ends with its standard input, so it never outlives its parent.
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
from gradscore.model.metadata import Preprocessing

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from gradscore.inputs.prefetch.decoding_service import serve; serve()"
_PIPE = 1 << 20  # bytes; what Linux allows anyone


@dataclass(frozen=True)
class Answer:
    """What became of some image files.

    Attributes
    ----------
    found
        Pixels, and what is wrong with files that have none.
    slow
        Seconds that files took which took long, by their places.
    cpu, wall
        Seconds that all took together.
    """

    found: Block
    slow: Mapping[int, float]
    cpu: float
    wall: float


def can_start() -> bool:
    """Tell whether this Python can start another: one that is built into a program would start that program."""
    return bool(sys.executable) and not hasattr(sys, "frozen")


class DecodingProcess:
    """Decodes image files for any threads, one request after the other; the next is with it before it has answered one."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._asking, self._answering = Lock(), Lock()
        self._shape = preprocessing.channels, preprocessing.height, preprocessing.width
        command = [sys.executable, "-c", _START, json.dumps(sys.path)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, process_group=0)  # noqa: S603 - Ctrl-C is not for it
        try:
            for end in self._pipes():
                _widen(end)
            self._ask({"preprocessing": asdict(preprocessing), "most_pixels": Image.MAX_IMAGE_PIXELS})
        except BaseException:
            self.close()
            raise

    def read(self, paths: Sequence[str]) -> Answer:
        """Decode files.

        Raises
        ------
        OSError, ValueError
            The process has ended.
        """
        with self._asking:
            self._ask(paths)
            self._answering.acquire()  # in the order of the requests
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
            except OSError:  # what it was still to be told
                continue
        self._process.wait()

    def _ask(self, request: object) -> None:
        pipe, _ = self._pipes()
        pipe.write(json.dumps(request).encode("ascii") + b"\n")
        pipe.flush()

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018 - they were asked for
        return self._process.stdin, self._process.stdout


def _widen(pipe: IO[bytes]) -> None:
    """Let a pipe hold an answer, where the system can: who writes to a full one waits until somebody reads."""
    with suppress(OSError, ImportError, AttributeError):
        from fcntl import F_SETPIPE_SZ, fcntl  # noqa: PLC0415 - Linux has it

        fcntl(pipe, F_SETPIPE_SZ, _PIPE)


def _by_place(found: Mapping[str, Any]) -> dict[int, Any]:
    return {int(index): value for index, value in found.items()}
