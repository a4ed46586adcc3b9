"""What moto's CloudWatch Logs leaves out."""

from __future__ import annotations

from typing import Any


def named_streams(asked: dict[str, Any], logs: Any) -> dict[str, Any]:
    """Say FilterLogEvents' streams by name, since moto passes over their prefix.

    Args:
        asked: Parameters of FilterLogEvents.
        logs: Client of CloudWatch Logs.

    Returns:
        Parameters that moto answers as the service does: of these streams, in the order of time.
    """
    prefix = asked.pop("logStreamNamePrefix", None)
    if prefix is not None:
        pages = logs.get_paginator("describe_log_streams").paginate(
            logGroupName=asked["logGroupName"], logStreamNamePrefix=prefix
        )
        names = [stream["logStreamName"] for page in pages for stream in page["logStreams"]]
        asked["logStreamNames"] = names or [prefix]  # of no stream, where none begins so
    return asked | {"interleaved": True}
