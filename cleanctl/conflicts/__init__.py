"""Images that stand in each other's way: copies, leaks into other splits, contradictory labels, placeholders."""
