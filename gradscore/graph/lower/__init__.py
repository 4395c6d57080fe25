"""Pass 5: training-only operators into standard ones, and gradients kept behind their pools."""
