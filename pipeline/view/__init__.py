"""`heatlas view`: a local server and a page to explore a store and to record decisions."""
