"""Every setting: its type, range, default and help text, and where its value comes from."""
