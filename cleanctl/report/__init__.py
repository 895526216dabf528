"""What a person reads of a run: tables, and later plots and the HTML report."""
