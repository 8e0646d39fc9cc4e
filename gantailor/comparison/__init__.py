"""Several methods on one teacher and one image budget: the runs, and their table and plots."""
