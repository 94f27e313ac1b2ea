"""What is there: every kind of data set as a listing, one row per sample."""
