"""The versioned schemas shared by the two stages, and nothing else."""
