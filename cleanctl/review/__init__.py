"""What a person decides of labels: files of verdicts, the log in the store, and a page that writes to it."""
