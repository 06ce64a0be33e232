"""Training: the trainer, its run directory, checkpoints and records."""
