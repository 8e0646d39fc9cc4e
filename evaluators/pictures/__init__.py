"""Picture files as they are found: which of a folder count, what becomes of their pixels, which belong together."""
