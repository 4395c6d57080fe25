"""Scoring runs: a source scored into a table, in shards that survive a killed process."""
