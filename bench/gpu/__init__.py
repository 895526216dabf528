"""What a GPU reaches of its limits: `python -m bench.gpu`."""
