"""The embedded data set with its planted shortcut, the small network trained on it, and `heatlas demo`."""
