"""The command line: parsing and messages, nothing else."""
