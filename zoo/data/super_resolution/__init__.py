"""Data of super-resolution: large pictures alone, made small as a function of (seed, step)."""
