"""Groups of explanations: what a class is recognised by, found in its maps."""
