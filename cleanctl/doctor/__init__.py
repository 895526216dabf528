"""What this machine can run, and what to type where it cannot."""
