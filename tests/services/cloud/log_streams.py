"""Support prefixes of log streams, which moto's CloudWatch Logs ignores."""

from __future__ import annotations

from typing import Any


def with_stream_names(asked: dict[str, Any], logs: Any) -> dict[str, Any]:
    """Replace the stream prefix of FilterLogEvents, which moto ignores, by stream names.

    Args:
        asked: Parameters of FilterLogEvents.
        logs: Client of CloudWatch Logs.

    Returns:
        Parameters for which moto returns the events of these streams, in order of time.
    """
    prefix = asked.pop("logStreamNamePrefix", None)
    if prefix is not None:
        pages = logs.get_paginator("describe_log_streams").paginate(
            logGroupName=asked["logGroupName"], logStreamNamePrefix=prefix
        )
        names = [stream["logStreamName"] for page in pages for stream in page["logStreams"]]
        asked["logStreamNames"] = names or [prefix]  # an unknown name if none matches
    return asked | {"interleaved": True}
