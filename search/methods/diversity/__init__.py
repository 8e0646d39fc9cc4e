"""Diversity-aware channel pruning (DCP-GAN)."""
