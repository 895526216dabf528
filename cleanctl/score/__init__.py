"""Embeddings (N, D) to what each classifier says of each sample: zero-shot, logistic, kNN; per-class mixtures."""
