"""`python -m renate_stages`, where the console command is not on the path."""

from renate_stages.cli.main import main

main()
