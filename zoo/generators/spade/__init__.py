"""SPADE (GauGAN), and its mobile form."""
