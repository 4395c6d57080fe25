"""Files on disk: written whole or not at all, locked while a run writes them, known by their content."""
