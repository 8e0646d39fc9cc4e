"""The once-for-all supernet and search (GAN Compression)."""
