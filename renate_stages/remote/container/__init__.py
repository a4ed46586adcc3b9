"""What runs inside a job: `remote/start.py` first, alone, then this package as a program."""
