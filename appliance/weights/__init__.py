"""A path becomes checked `Weights`: headers are read within bounds, files are digested, nothing is executed."""
