"""The FFCV file of a split and its row table."""
