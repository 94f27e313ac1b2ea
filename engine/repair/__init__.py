"""Change a classifier so that it no longer hangs on a mark: its last layer, or the loss that it is trained with."""
