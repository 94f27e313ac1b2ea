"""Ray actors and the loop that supervises them; nothing else in heatlas imports Ray."""
