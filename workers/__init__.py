"""The middle floor: Ray, processes and devices. Knows no file format; gets its reader and sink by injection."""
