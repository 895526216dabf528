"""Several processes that fill one store."""
