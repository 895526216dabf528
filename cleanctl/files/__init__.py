"""Bytes anywhere: folders, URLs, tars; fingerprints; files that are whole or absent."""
