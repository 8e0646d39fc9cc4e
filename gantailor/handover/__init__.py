"""What is handed over to whoever runs a generator: how it is fed and read, and all of it in one file."""
