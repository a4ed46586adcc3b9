"""`renate.utils`: search spaces and optimizers."""
