"""MLflow: each attempt at an update is one run. Nothing else in the library knows MLflow."""

from renate_stages.tracking.location import tracking_uri
from renate_stages.tracking.provenance import provenance_tags
from renate_stages.tracking.runs import RunIdentity, Tracker, TrialRun, new_run, reopened_run

__all__ = [
    "RunIdentity",
    "Tracker",
    "TrialRun",
    "new_run",
    "provenance_tags",
    "reopened_run",
    "tracking_uri",
]
