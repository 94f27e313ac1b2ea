"""`heatlas import`: a store from maps that other tools made."""
