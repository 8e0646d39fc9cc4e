"""Controlled pruning by hypernetworks (CoroNet-GAN)."""
