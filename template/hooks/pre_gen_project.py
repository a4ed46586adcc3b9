"""Refuse answers that no project can be made of: a slug that is no folder, a remote that is no place."""

import re
import sys

SLUG = "{{ cookiecutter.project_slug }}"
REMOTE = "{{ cookiecutter.dvc_remote }}"
ENDPOINT = "{{ cookiecutter._s3_endpoint_url }}"

# As S3 has it: 3 to 63 lower-case letters, digits, dots and hyphens; then a folder, or none.
BUCKET = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/\s]+)*/?"


def refuse(name, found, expected):
    print(f"error: {name} is '{found}': expected {expected}", file=sys.stderr)
    sys.exit(1)


if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", SLUG):
    refuse(
        "project_slug",
        SLUG,
        "lower-case letters and digits, in words joined by '-', beginning with a letter, for "
        "example 'fraud-model'",
    )
if re.match(r"s3:", REMOTE, re.IGNORECASE) and not re.fullmatch(BUCKET, REMOTE):
    refuse("dvc_remote", REMOTE, "s3://bucket/folder, with a bucket's name as S3 allows it")
if REMOTE.startswith("~"):
    refuse("dvc_remote", REMOTE, "a path without '~', which DVC takes for a folder's name")
if not REMOTE.strip() or REMOTE != REMOTE.strip() or "\n" in REMOTE:
    refuse("dvc_remote", REMOTE, "a path, or s3://bucket/folder, without spaces around it")
if ENDPOINT and not (re.fullmatch(r"https?://\S+", ENDPOINT) and REMOTE.startswith("s3://")):
    refuse(
        "_s3_endpoint_url",
        ENDPOINT,
        "http://host:port or https://host beside a dvc_remote that is s3://bucket/folder",
    )
