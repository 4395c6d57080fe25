"""Prefetching: inputs are read in threads and in separate processes while earlier ones are scored."""
