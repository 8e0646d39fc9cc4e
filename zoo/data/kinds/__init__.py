"""One file for each kind of data, with its record."""
