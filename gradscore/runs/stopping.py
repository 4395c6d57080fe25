"""SIGINT and SIGTERM: a stopped run reports what is kept, with the usual exit code."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from gradscore.errors import GradscoreError

EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_TERMINATED = 128 + signal.SIGTERM


class StoppedError(GradscoreError):
    """A signal ended the run. Finished shards are kept."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class _Terminated(KeyboardInterrupt):
    """SIGTERM, raised in the main thread as Python raises KeyboardInterrupt for SIGINT."""


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise _Terminated


@contextmanager
def stoppable(kept: Callable[[], str]) -> Iterator[None]:
    """Turn SIGINT and SIGTERM in the block into a StoppedError.

    `kept` returns what remains of the work.

    Outside the main thread, Python allows no signal handlers, so SIGTERM keeps its usual effect.
    """
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _terminate) if main else None
    try:
        yield
    except _Terminated as stop:
        raise StoppedError(f"terminated; {kept()}", EXIT_TERMINATED) from stop
    except KeyboardInterrupt as stop:
        raise StoppedError(f"interrupted; {kept()}", EXIT_INTERRUPTED) from stop
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
