"""The package's version, as its installed metadata says it."""

from importlib.metadata import version

__version__ = version("gradscore")
