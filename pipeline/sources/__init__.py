"""Where samples come from: each file lists one kind of data set as an Arrow table of samples."""
