"""Which images, labels and classes a source holds."""
