"""Several processes: a batch divided into shards, Ray's cluster, and the trainer on Ray Train's workers."""
