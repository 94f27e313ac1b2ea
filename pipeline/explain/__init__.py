"""`heatlas explain`: one run from settings to a complete store."""
