"""Once-for-all supernet and search (GAN Compression, Li et al. 2020, arXiv 2003.08936)."""

from __future__ import annotations

from gantailor.search.methods.method import Method

SUPERNET = Method(name="supernet")
