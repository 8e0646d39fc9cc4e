"""A run looked at while it goes on: one page, read from its folder alone, on this machine alone."""
