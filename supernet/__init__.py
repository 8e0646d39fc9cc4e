"""The width graph of a generator, and everything that is read off it: slices, costs, scores, training."""
