"""`heatlas train`: from images and a model to a file that explains the model in one pass."""
