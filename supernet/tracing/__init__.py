"""Which channel counts belong together: one real forward with an identity for every channel."""
