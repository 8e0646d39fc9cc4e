"""Which widths may be chosen, what they may cost, and how the best are found."""
