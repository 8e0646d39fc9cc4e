"""Pruning agents (Ganjdanesh et al.): the generator and its discriminator, by two recurrent agents."""
