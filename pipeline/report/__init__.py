"""`heatlas report`: a run as one HTML page for people."""
