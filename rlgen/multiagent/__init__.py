"""Several agents at once."""
