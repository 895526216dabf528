"""The report's records as HTML, a file a section: each function gives a Section, or None where there is nothing."""
