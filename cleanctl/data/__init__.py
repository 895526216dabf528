"""Sources and pixels: dataset layouts, label tables, label noise, decoding, the FFCV file, loaders."""
