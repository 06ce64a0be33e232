"""Image sets, their splits, pair sampling and augmentation."""
