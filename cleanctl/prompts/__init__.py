"""Prompt sets: the sentences that stand for each class."""
