"""MixFix and plain cross-entropy: networks, augmentation, sampling, the loop, recipes."""
