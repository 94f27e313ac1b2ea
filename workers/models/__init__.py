"""Models by name or file, loaded and checked."""
