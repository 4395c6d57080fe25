"""The graph itself: reading and storing it, writing nodes, running and measuring parts of it."""
