"""GAN Slimming."""
