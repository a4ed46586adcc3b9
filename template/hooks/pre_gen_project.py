"""Check the answers before a project is generated: project_slug, dvc_remote, _s3_endpoint_url."""

import re
import sys

SLUG = "{{ cookiecutter.project_slug }}"
REMOTE = "{{ cookiecutter.dvc_remote }}"
ENDPOINT = "{{ cookiecutter._s3_endpoint_url }}"

# S3's rule for bucket names: 3 to 63 lower-case letters, digits, dots and hyphens. A folder may follow.
BUCKET = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/\s]+)*/?"


def refuse(name, found, expected):
    print(f"error: {name} is '{found}'; expected {expected}", file=sys.stderr)
    sys.exit(1)


if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", SLUG):
    refuse(
        "project_slug",
        SLUG,
        "lower-case letters, digits and single '-' between words, starting with a letter, for "
        "example 'fraud-model'",
    )
if re.match(r"s3:", REMOTE, re.IGNORECASE) and not re.fullmatch(BUCKET, REMOTE):
    refuse("dvc_remote", REMOTE, "s3://bucket/folder with a valid S3 bucket name")
if REMOTE.startswith("~"):
    refuse("dvc_remote", REMOTE, "a path without '~', because DVC does not expand it")
if not REMOTE.strip() or REMOTE != REMOTE.strip() or "\n" in REMOTE:
    refuse("dvc_remote", REMOTE, "a path, or s3://bucket/folder, without spaces around it")
if ENDPOINT and not (re.fullmatch(r"https?://\S+", ENDPOINT) and REMOTE.startswith("s3://")):
    refuse(
        "_s3_endpoint_url",
        ENDPOINT,
        "http://host:port or https://host, and a dvc_remote of the form s3://bucket/folder",
    )
