"""Data modules for tables, images, texts and arrays, by name in params.yaml or from Python."""
