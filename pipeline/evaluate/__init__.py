"""`heatlas evaluate`: metrics for maps that are stored."""
