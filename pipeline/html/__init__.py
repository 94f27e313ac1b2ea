"""Self-contained HTML pages for people. Knows how a page looks and behaves, not what is on it."""
