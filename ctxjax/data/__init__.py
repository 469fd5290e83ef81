"""From shards to batches: a batch is a pure function of (seed, step)."""
