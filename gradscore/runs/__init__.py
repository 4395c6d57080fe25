"""A source scored into a table: shards, one at a time, that survive a killed process."""
