"""Programs that take an interruption, as in a terminal."""

import signal
import subprocess


def start(command, **options):
    """Start a program with Ctrl-C on: a test run in the background ignores it, and its programs would, too."""

    def take_interruptions():
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen([*map(str, command)], text=True, preexec_fn=take_interruptions, **options)  # noqa: PLW1509 - no threads here
