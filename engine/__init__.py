"""The ground floor: tensors in, maps and numbers out. Knows no Ray, no files, no settings."""
