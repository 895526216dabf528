"""open_clip models: resolving, weights, provenance, encoding."""
