"""Files on disk: atomic writing, locks, and digests of their content."""
