"""A verb's result → rich tables and lines that fit 80 columns, a file a verb; they load with a result."""
