"""Compare the data that is added to DVC with the data that the stages have read, by hashes alone."""

from __future__ import annotations

from renate_stages.files import yaml_file
from renate_stages.lineage.opening import DATA
from renate_stages.lineage.records import lock_text, read_pointer, stage_entry
from renate_stages.project import Project

PREPARED = "work/prepared"


def is_prepared(project: Project) -> bool | None:
    """Return whether `prepare` has read the data that `data/incoming.dvc` names.

    Returns:
        None if one of the two is unknown: the data is not tracked there, or `prepare` has not run.
    """
    pointer = project.root / DATA
    read = stage_entry(lock_text(project), "prepare", "deps", "data/incoming")
    if read is None or not pointer.is_file():
        return None
    return read_pointer(yaml_file.text(pointer), DATA)["md5"] == read["md5"]


def is_trained(project: Project) -> bool:
    """Return whether the last `train` read what the last `prepare` wrote."""
    lock = lock_text(project)
    written = stage_entry(lock, "prepare", "outs", PREPARED)
    read = stage_entry(lock, "train", "deps", PREPARED)
    return written is not None and read is not None and written["md5"] == read["md5"]
