"""What a store holds, what of it is stale and why, and what to type next."""
