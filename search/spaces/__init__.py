"""Search spaces: the widths that may be chosen, and the published tables of them."""
