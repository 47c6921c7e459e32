"""The versioned schemas that the two stages meet in, and nothing else."""
