"""MUNIT, and its mobile form."""
