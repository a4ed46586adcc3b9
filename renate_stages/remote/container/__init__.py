"""The program that runs inside a job, after `remote/start.py` has installed the library."""
