"""What a model says of an image before it classifies, and a classifier made of it and labelled images."""
