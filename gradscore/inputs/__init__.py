"""The kinds of inputs that `sources.py` chooses from: files, archives, arrays, tables, remote objects."""
