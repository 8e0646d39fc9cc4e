"""The job, a file for each stage: a function from a run to files in its folder."""
