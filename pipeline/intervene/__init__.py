"""Remove a suspected region from images, paste it into others, and say what that does to the model."""
