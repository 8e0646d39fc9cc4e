"""CartoonGAN."""
