"""How updates follow each other: the parent pointer, the tags, `next` and `verify`.

The only package that reads `dvc.lock` or writes a `.dvc` file. A pipeline is a graph without
cycles, and an update needs the state that the one before it wrote: the edge is `parent.dvc`, whose
content hash is that of `state` in the parent's `dvc.lock`.
"""

from renate_stages.lineage.chain import verify
from renate_stages.lineage.commands import dvc, fetch, git, has_remote, track
from renate_stages.lineage.opening import open_forget, open_from, open_next, unfinished
from renate_stages.lineage.records import (
    at_tag,
    is_fresh,
    older_versions,
    pointer_hash,
    state_hash,
    tags,
)
from renate_stages.lineage.standing import status

__all__ = [
    "at_tag",
    "dvc",
    "fetch",
    "git",
    "has_remote",
    "is_fresh",
    "older_versions",
    "open_forget",
    "open_from",
    "open_next",
    "pointer_hash",
    "state_hash",
    "status",
    "tags",
    "track",
    "unfinished",
    "verify",
]
