"""Refuse a project slug that cannot be a folder and an experiment's name everywhere."""

import re
import sys

SLUG = "{{ cookiecutter.project_slug }}"

if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", SLUG):
    print(
        f"error: project_slug is '{SLUG}': expected lower-case letters and digits, in words joined "
        "by '-', beginning with a letter, for example 'fraud-model'",
        file=sys.stderr,
    )
    sys.exit(1)
