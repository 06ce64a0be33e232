"""Short trainings for the demo's tests."""

SHORT = {
    "training.epochs": 1,
    "data.pairs_per_epoch": 64,
    "data.pairs_per_batch": 16,
    "data.hold_out_validation": False,
}
