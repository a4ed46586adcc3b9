"""The command line: parsing and messages, nothing else."""

from renate_stages.cli.main import app, guarded, main

__all__ = ["app", "guarded", "main"]
