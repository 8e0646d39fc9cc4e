"""Training in few bits: quantisers, and the activation ranges that are stored."""
