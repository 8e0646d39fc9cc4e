"""The ResNet generators of pix2pix and CycleGAN, and their mobile forms."""
