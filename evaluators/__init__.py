"""Metrics of generators and of folders of pictures."""
