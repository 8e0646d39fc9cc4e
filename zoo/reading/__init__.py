"""Reading checkpoints: files by their content, the mapping inside that is meant, its names and its tensors."""
