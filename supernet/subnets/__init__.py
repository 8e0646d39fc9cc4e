"""From a graph and widths to a narrow module: slicing, folding, and blocks that lose all their channels."""
