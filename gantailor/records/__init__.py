"""What run folders tell without being opened as runs: read within bounds, nothing of them imported or executed."""
