"""Settings of a training on digits that takes a second."""

SHORT = {
    "training.epochs": 1,
    "data.pairs_per_epoch": 64,
    "data.pairs_per_batch": 16,
    "data.hold_out_validation": False,
}
