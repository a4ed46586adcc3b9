"""What runs inside a job: `start.py` first, alone, then this package as a program."""
