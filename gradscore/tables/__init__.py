"""Score tables: rows in memory, file formats, and the manifest beside the shards."""
