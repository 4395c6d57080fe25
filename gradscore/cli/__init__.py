"""The command line, with one file per group of commands."""

from gradscore.cli.commands import app, main

__all__ = ["app", "main"]
