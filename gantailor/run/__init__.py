"""A run: its folder, its configuration, and what that makes."""
