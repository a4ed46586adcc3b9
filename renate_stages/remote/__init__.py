"""What lies elsewhere: files under URLs, and states among them."""

from renate_stages.remote.storage import Storage, Traffic

__all__ = ["Storage", "Traffic"]
