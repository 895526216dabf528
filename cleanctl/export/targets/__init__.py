"""What `export` can write, a file a kind; target.py says what one is, `registry.TARGETS` which there are."""
