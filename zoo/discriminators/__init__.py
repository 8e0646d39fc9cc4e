"""Discriminators: by patches, at several scales, StyleGAN2's."""
