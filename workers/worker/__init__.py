"""The worker: builds its model once, then explains one shard after another. Knows no Ray."""
