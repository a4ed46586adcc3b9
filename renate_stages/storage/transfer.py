"""Upload or download one file with verification and retries."""

from __future__ import annotations

from pathlib import Path

from renate_stages import files
from renate_stages.errors import DamagedTransferError, MissingFileError
from renate_stages.files import Entry
from renate_stages.storage import checksums, services
from renate_stages.storage.checksums import Content
from renate_stages.storage.retries import attempt


def send(service: services.Service, path: str, url: str, content: Content) -> None:
    """Upload a file, and verify its size and, if the service has a checksum, its content.

    Args:
        service: The service to upload to.
        path: Path of the file in the service.
        url: URL of the file, for errors.
        content: A local file, or bytes.

    Raises:
        RemoteRefusedError: If the service refuses a request.
        RemoteUnreachableError: If the service does not respond.
        DamagedTransferError: If the uploaded content differed in every attempt.
    """

    def once() -> None:
        answer = service.write(path, content)
        if answer is None or service.agrees(path, answer, content) is not True:
            answer = service.ask(path)
        size = checksums.size_of(content)
        if answer["size"] != size:
            raise DamagedTransferError(url, f"received {answer['size']} bytes of {size}")
        if service.agrees(path, answer, content) is False:
            raise DamagedTransferError(url, "its content differs from the uploaded file")

    attempt("uploading", url, once)


def fetch(service: services.Service, path: str, url: str, target: Path, entry: Entry) -> None:
    """Download a file; it gets its final name after it is verified.

    Args:
        service: The service to download from.
        path: Path of the file in the service.
        url: URL of the file, for errors.
        target: Local path of the file.
        entry: Expected `size` and `sha256`; without `sha256`, the `mark` of the service is used.

    Raises:
        MissingFileError: If the file does not exist.
        RemoteRefusedError: If the service refuses a request.
        RemoteUnreachableError: If the service does not respond.
        DamagedTransferError: If the content does not match the entry in every attempt.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = services.temporary_path(target)

    def once() -> None:
        service.fetch(path, temporary)
        size = temporary.stat().st_size
        if size != entry["size"]:
            raise DamagedTransferError(url, f"found {size} bytes, expected {entry['size']}")
        if "sha256" in entry and files.sha256(temporary) != entry["sha256"]:
            # If the transfer was exact, the file at the service is damaged, and retries are useless.
            is_exact = service.agrees(path, service.ask(path), temporary) is True
            problem = "its SHA-256 differs from the listed one"
            raise DamagedTransferError(url, problem, passes=not is_exact)
        if "sha256" not in entry and _is_another(service, path, temporary, entry):
            raise DamagedTransferError(url, "its content does not match the service's checksum")

    try:
        attempt("downloading", url, once)
        temporary.replace(target)
    except FileNotFoundError as error:
        raise missing(url) from error
    finally:
        temporary.unlink(missing_ok=True)


def missing(url: str) -> MissingFileError:
    """Return the error for a file that does not exist."""
    return MissingFileError(url, "the file does not exist", "check that the URL is correct")


def _is_another(service: services.Service, path: str, content: Path, entry: Entry) -> bool:
    """Return whether the service's checksum shows that its file has other content."""
    agrees = service.agrees(path, {"ETag": entry.get("mark", "")}, content)
    if agrees is False:  # the mark of an encrypted object is not an MD5
        agrees = service.agrees(path, service.ask(path), content)
    return agrees is False
