"""The command line: one file a command group."""

from gradscore.cli.commands import app, main

__all__ = ["app", "main"]
