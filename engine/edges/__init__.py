"""How strong an edge runs through every pixel of an image, whatever a model sees in it."""
