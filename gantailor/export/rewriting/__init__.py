"""What is rewritten in a generator's own forward, where no module can be put in another's place."""
