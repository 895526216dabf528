"""Training methods, a file each; method.py says what one is, `registry.METHODS` which there are."""
