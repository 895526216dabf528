"""The Zarr store: schema, atomic writer, reader, provenance."""
