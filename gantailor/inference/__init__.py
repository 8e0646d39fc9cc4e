"""Exported generators applied to pictures: whole or tile by tile, file by file."""
