"""A benchmark of decisions: classifiers on real data, and what their verdicts and published detectors are worth."""
