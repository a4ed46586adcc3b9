"""Upload and download files and states at URLs."""

from renate_stages.storage.storage import Storage, Traffic

__all__ = ["Storage", "Traffic"]
