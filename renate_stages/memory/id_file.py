"""Read text files with one example id per line, as for `renate-stages forget --ids`."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from renate_stages.errors import InvalidIdFileError, MissingFileError

_OTHER_ENCODINGS = {  # UTF-32 first, because its mark begins with UTF-16's
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_SEPARATORS = ",;\t|\"'"
_LOOKED_AT = 1000  # lines


class IdFile:
    """The lines of a UTF-8 file that are not blank; each iteration reads the file again.

    A byte order mark is removed. Lines may end in `\\n`, `\\r\\n` or `\\r`.

    Args:
        path: The file.

    Raises:
        MissingFileError: If the file does not exist.
        InvalidIdFileError: If it cannot be read as UTF-8 text, or has only blank lines.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise MissingFileError(
                path, "it should list the ids to forget", "give a text file with one id per line"
            )
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "not a plain file"
            raise InvalidIdFileError(path, f"it is {kind}")
        try:
            with path.open("rb") as stream:
                head = stream.read(4)
            self._require_utf8(head)
            if not sum(
                1 for _ in self
            ):  # reads every line, so that a broken one fails before any work
                raise InvalidIdFileError(path, "it contains no ids")
        except UnicodeDecodeError as error:
            problem = f"line {self._broken_line()} is not UTF-8"
            raise InvalidIdFileError(path, problem) from error
        except OSError as error:
            raise InvalidIdFileError(path, f"it cannot be read ({error.strerror})") from error

    def __iter__(self) -> Iterator[str]:
        with self.path.open(encoding="utf-8-sig") as stream:  # \n, \r\n and \r end a line
            for line in stream:
                if not line.isspace():
                    yield line.rstrip("\n")

    def looks_like_a_table(self) -> bool:
        """Return whether most of the first lines contain separators or quotes, as in a CSV file."""
        lines = list(islice(self, _LOOKED_AT))
        return 2 * sum(any(each in line for each in _SEPARATORS) for line in lines) > len(lines)

    def _require_utf8(self, head: bytes) -> None:
        for mark, name in _OTHER_ENCODINGS.items():
            if head.startswith(mark):
                raise InvalidIdFileError(self.path, f"it is {name}")
        if b"\0" in head:
            raise InvalidIdFileError(
                self.path, "it contains zero bytes, as UTF-16 and UTF-32 files do"
            )

    def _broken_line(self) -> int:
        with self.path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    line.decode()
                except UnicodeDecodeError:
                    return number
        return 1
