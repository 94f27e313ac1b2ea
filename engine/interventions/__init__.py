"""Change a region of images and measure what the model's confidence does: fills, control regions, transplants."""
