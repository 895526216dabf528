"""Numbers: selection quality, zero-shot accuracy, top-1 and top-5."""

from cleanctl.evaluate.evaluate import evaluate_store

__all__ = ["evaluate_store"]
