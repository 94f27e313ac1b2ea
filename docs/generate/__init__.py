"""Make the documentation pages that follow from the code alone; pages of measured numbers are written by `python -m bench`."""
