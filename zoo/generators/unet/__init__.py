"""The U-Net generators of pix2pix."""
