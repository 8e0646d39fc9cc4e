"""Commands on folders as they are: runs listed and watched, pictures and checkpoints looked at."""
