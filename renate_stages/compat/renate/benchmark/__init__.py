"""`renate.benchmark`: models and data modules."""
