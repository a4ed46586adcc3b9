"""Send or fetch one file, verified and retried."""

from __future__ import annotations

from pathlib import Path

from renate_stages import files
from renate_stages.errors import DamagedTransferError, MissingFileError
from renate_stages.files import Entry
from renate_stages.storage import checksums, services
from renate_stages.storage.checksums import Content
from renate_stages.storage.retries import attempt


def send(service: services.Service, path: str, url: str, content: Content) -> None:
    """Send a file, and compare what arrived with what was sent as far as the service tells it.

    Args:
        service: Where to.
        path: Of the file there.
        url: The same, for errors.
        content: A local file, or bytes.

    Raises:
        RemoteRefusedError: If the service refuses.
        RemoteUnreachableError: If it does not answer.
        DamagedTransferError: If it has other bytes than were sent, each time.
    """

    def once() -> None:
        answer = service.write(path, content)
        if answer is None or service.agrees(path, answer, content) is not True:
            answer = service.ask(path)
        size = checksums.size_of(content)
        if answer["size"] != size:
            raise DamagedTransferError(url, f"received {answer['size']} bytes of {size}")
        if service.agrees(path, answer, content) is False:
            raise DamagedTransferError(url, "the received bytes differ from those sent")

    attempt("sending", url, once)


def fetch(service: services.Service, path: str, url: str, target: Path, entry: Entry) -> None:
    """Fetch a file; it takes its place when it is verified.

    Args:
        service: Where from.
        path: Of the file there.
        url: The same, for errors.
        target: Its place here.
        entry: Its `size`; and its `sha256`, or else the `mark` that the service has for its content.

    Raises:
        MissingFileError: If it is not there.
        RemoteRefusedError: If the service refuses.
        RemoteUnreachableError: If it does not answer.
        DamagedTransferError: If it is not what the entry says, each time.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = services.beside_of(target)

    def once() -> None:
        service.fetch(path, beside)
        size = beside.stat().st_size
        if size != entry["size"]:
            raise DamagedTransferError(url, f"found {size} bytes, expected {entry['size']}")
        if "sha256" in entry and files.sha256(beside) != entry["sha256"]:
            arrived = service.agrees(path, service.ask(path), beside) is True
            problem = "its SHA-256 differs from the listed one"
            raise DamagedTransferError(url, problem, passes=not arrived)
        if "sha256" not in entry and _is_another(service, path, beside, entry):
            raise DamagedTransferError(url, "the received bytes differ from those of the service")

    try:
        attempt("fetching", url, once)
        beside.replace(target)
    except FileNotFoundError as error:
        raise missing(url) from error
    finally:
        beside.unlink(missing_ok=True)


def missing(url: str) -> MissingFileError:
    """Return the error of a file that is not there."""
    return MissingFileError(url, "there is no such file", "check that the URL is right")


def _is_another(service: services.Service, path: str, content: Path, entry: Entry) -> bool:
    """Return whether the service disproves that its file has this content."""
    agrees = service.agrees(path, {"ETag": entry.get("mark", "")}, content)
    if agrees is False:  # the mark is no MD5 where the file is encrypted
        agrees = service.agrees(path, service.ask(path), content)
    return agrees is False
