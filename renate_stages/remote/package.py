"""Package the installed library as a wheel for jobs, with pinned dependencies.

A job uses the package versions that are installed here, because other versions may give different
results or fail. The wheel is built from the installed files, so it includes local changes of a
checkout; equal files give an equal wheel.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from io import BytesIO
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from renate_stages import _version
from renate_stages.errors import MalformedFileError, MissingFileError, NotInstalledHereError

DISTRIBUTION = "renate-stages"
EXTRAS = ("s3",)  # a job reads and writes the bucket
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time of a zip file


def wheel() -> tuple[str, bytes]:
    """Build a wheel of this library; return its name and bytes, equal for equal sources."""
    package = Path(_version.__file__).parent
    version = _version.__version__
    folder = f"renate_stages-{version}.dist-info"
    content = {
        path.relative_to(package.parent).as_posix(): path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts
    }
    described = f"Metadata-Version: 2.1\nName: {DISTRIBUTION}\nVersion: {version}\n"
    described += f"Requires-Python: {metadata.metadata(DISTRIBUTION)['Requires-Python']}\n"
    kind = "Wheel-Version: 1.0\nGenerator: renate-stages\nRoot-Is-Purelib: true\n"
    content[f"{folder}/METADATA"] = described.encode()
    content[f"{folder}/WHEEL"] = f"{kind}Tag: py3-none-any\n".encode()
    record = f"{folder}/RECORD"
    lines = [f"{name},sha256={_digest(each)},{len(each)}" for name, each in content.items()]
    content[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, each in content.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, each)
    return f"renate_stages-{version}-py3-none-any.whl", packed.getvalue()


def pins(requirements: Path | None = None, without: Iterable[str] = ()) -> list[str]:
    """Return `name==version` of the packages that the library and a requirements file need, sorted.

    Args:
        requirements: A requirements file; only its names count, with the installed versions.
        without: Names of packages to leave out because the image contains them.

    Raises:
        MissingFileError: If the file does not exist.
        MalformedFileError: If a line of the file cannot be parsed.
        NotInstalledHereError: If it names a package that is not installed here.
    """
    roots = [Requirement(f"{DISTRIBUTION}[{','.join(EXTRAS)}]")]
    if requirements is not None:
        named = list(_read(requirements))
        lacking = {each.name for each in named if not _installed(each.name)}
        if lacking:
            raise NotInstalledHereError(str(requirements), lacking)
        roots += named
    left = {canonicalize_name(name) for name in (*without, DISTRIBUTION)}
    found = {name: version for name, version in _closure(roots).items() if name not in left}
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def _closure(roots: list[Requirement]) -> dict[str, str]:
    """Return the installed versions of requirements and their dependencies, by canonical name."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(root, extra) for root in roots for extra in ("", *root.extras)]
    environment: dict[str, str] = dict(default_environment())  # type: ignore[arg-type]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen or not _installed(name):
            continue
        seen.add((name, extra))
        distribution = metadata.distribution(name)
        versions[name] = distribution.version.partition("+")[
            0
        ]  # without a device suffix such as +cu121
        for line in distribution.requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({**environment, "extra": extra}):
                waiting += [(needed, each) for each in ("", *needed.extras)]
    return versions


def _read(path: Path) -> Iterator[Requirement]:
    if not path.is_file():
        cure = "create it, or set remote.requirements: null in params.yaml"
        raise MissingFileError(path, "it lists what to install in jobs", cure)
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.partition(" #")[0].strip()
        if not text or text.startswith(("#", "-")):  # skips options of pip
            continue
        try:
            yield Requirement(text)
        except InvalidRequirement as error:
            raise MalformedFileError(path, f"requirements, line {line!r}", str(error)) from error


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
