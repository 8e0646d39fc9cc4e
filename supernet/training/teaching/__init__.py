"""Distillation: what a student is compared by with its teacher, and what the teacher said, kept."""
