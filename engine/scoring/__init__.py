"""Confidence of a model in masked inputs, scored in shared batches."""
