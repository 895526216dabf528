"""Published tables and figures, row by row: what the papers say beside what cleanctl measures."""
