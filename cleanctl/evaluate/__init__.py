"""Numbers: selection quality, zero-shot accuracy, top-1 and top-5."""
