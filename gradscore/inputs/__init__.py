"""Inputs: files, archives, arrays, tables and remote objects, listed and read."""
