"""`renate.benchmark.datasets`: data modules over local files."""
