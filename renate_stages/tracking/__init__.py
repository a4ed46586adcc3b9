"""Log updates to MLflow, one run for each attempt; only this package uses MLflow."""

from renate_stages.tracking.location import tracking_uri
from renate_stages.tracking.provenance import provenance_tags
from renate_stages.tracking.publication import move_alias, publication
from renate_stages.tracking.recording import FILE_VARIABLE
from renate_stages.tracking.records import RECORDING_BYTES
from renate_stages.tracking.replaying import replay
from renate_stages.tracking.runs import RunIdentity, Tracker, TrialRun, new_run, reopened_run

__all__ = [
    "FILE_VARIABLE",
    "RECORDING_BYTES",
    "RunIdentity",
    "Tracker",
    "TrialRun",
    "move_alias",
    "new_run",
    "provenance_tags",
    "publication",
    "reopened_run",
    "replay",
    "tracking_uri",
]
