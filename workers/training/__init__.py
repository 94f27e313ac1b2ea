"""Training of explainers: one rank's loop over its share of the images, in this process or in an actor."""
