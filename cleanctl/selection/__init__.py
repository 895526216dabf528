"""Per-sample scores to kept sets: thresholds, consistency, set algebra, fallback. Pure rules over arrays."""
