"""Find what a class's logit is made of over a data set, show it, and let people name it."""
