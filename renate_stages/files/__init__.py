"""Small files: atomic writes, typed reads, and hashes."""

from renate_stages.files.whole import (
    Entry,
    clear_abandoned,
    digest,
    entry_of,
    has_conflict_marks,
    has_half_characters,
    identities,
    inventory,
    link_or_copy,
    parse_json,
    read_json,
    sha256,
    umask,
    whole_directory,
    write_json,
    write_text,
)

__all__ = [
    "Entry",
    "clear_abandoned",
    "digest",
    "entry_of",
    "has_conflict_marks",
    "has_half_characters",
    "identities",
    "inventory",
    "link_or_copy",
    "parse_json",
    "read_json",
    "sha256",
    "umask",
    "whole_directory",
    "write_json",
    "write_text",
]
