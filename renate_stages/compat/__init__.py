"""Packages with the names of other libraries."""
