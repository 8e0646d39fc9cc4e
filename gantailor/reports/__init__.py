"""Pages, plots and tables of a finished run."""
