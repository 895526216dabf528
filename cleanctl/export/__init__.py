"""Tables for other tools, a file a format."""
