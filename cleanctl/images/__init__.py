"""Bytes of an image to crops of a model's input: decoding, geometry, the loaders."""
