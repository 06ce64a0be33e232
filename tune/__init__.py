"""The search for better configurations: Ray Tune with Optuna over the trainer of `colotride`."""
