"""Choose a method for a model and a data set by measured columns, and say why in one line."""
