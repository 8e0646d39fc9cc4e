"""From a narrow generator to files that a runtime reads, checked against PyTorch."""
