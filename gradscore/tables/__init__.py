"""Score tables: rows in memory, the formats they are written in, and the manifest beside shards."""
