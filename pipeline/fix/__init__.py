"""Repair a model by recipes that people's decisions feed; whether it is better says `heatlas verdict`."""
