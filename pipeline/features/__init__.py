"""Features, confidences and perceptual hashes of a run's images, and what they say of labels, outliers and duplicates."""
