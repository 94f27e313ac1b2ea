"""Record what people decide about images beside the store, and make a manifest of it."""
