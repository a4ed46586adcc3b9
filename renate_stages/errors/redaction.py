"""Hide secrets in URLs, and remove control characters, before text from outside is printed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote_plus, urlsplit

HIDDEN = "***"
QUERY_SHOWN = frozenset(
    {"charset", "driver", "region", "sslmode", "timeout", "versionId", "workflowType"}
)
"""Names in a URL's query whose values are shown; any other value may be a token or a signature."""
OBJECT_STORES = frozenset({"file", "gcs", "gs", "models", "runs", "s3", "s3a"})
"""Schemes whose paths may contain '@'; without a colon before it, '@' does not end a user name."""

_BEFORE_SCHEME = re.compile(r"[^A-Za-z0-9+.-]")
_LETTER = re.compile(r"[A-Za-z]")
_AUTHORITY = re.compile(r"[^/?#\s]*")
_TOKEN = re.compile(r"[^\s\"'<>`]*")
_PUNCTUATION = ").,;:'\"`>}!"
_SEQUENCE = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]")


def hide_secrets(text: str) -> str:
    """Hide user names, passwords and query values in all URLs of a text.

    If it is unclear where a password ends, for example because it contains spaces or '/', too much
    is hidden rather than too little: all up to the last '@' of the line, or up to the next URL.

    Args:
        text: A URL, or any text with URLs in it.
    """
    urls = list(_urls(text))
    if not urls:
        return text
    pieces = [text[: urls[0][0]]]
    ends = [*(start for start, _ in urls[1:]), len(text)]
    for (start, scheme), end in zip(urls, ends, strict=True):
        head = f"{scheme}://"
        line, newline, below = text[start + len(head) : end].partition("\n")
        redacted = _without_query(_without_user(scheme.lower(), line))
        pieces += [head, redacted, newline, below]
    return "".join(pieces)


def _urls(text: str) -> Iterator[tuple[int, str]]:
    """Yield start and scheme of each URL in a text, in linear time."""
    after = 0
    while (mark := text.find("://", after)) >= 0:
        word = text[after:mark][::-1]
        border = _BEFORE_SCHEME.search(word)
        run = (word[: border.start()] if border else word)[::-1]
        if letter := _LETTER.search(run):
            scheme = run[letter.start() :]
            yield mark - len(scheme), scheme
        after = mark + len("://")


def _without_user(scheme: str, line: str) -> str:
    """Hide the user name and the password of a URL, given what follows its '://'."""
    authority = _AUTHORITY.match(line)[0]  # type: ignore[index] - it matches an empty text too
    token = _TOKEN.match(line)[0]  # type: ignore[index]
    colon = ":" in authority.rstrip(_PUNCTUATION)
    if "@" in authority or not _is_host(authority):
        end = line.rfind("@")
        if end < 0:  # the text was cut off within the password
            return f"{authority.partition(':')[0]}:{HIDDEN}{line[len(authority) :]}"
    elif colon and authority[-1:].isdigit() and line[len(authority) :][:1].isspace():
        end = line.rfind("@")  # a password that begins with digits and contains a space
    elif colon or scheme not in OBJECT_STORES:
        end = token.rfind("@")
    else:
        end = -1
    return line if end < 0 else f"{HIDDEN}@{line[end + 1 :]}"


def _is_host(authority: str) -> bool:
    """Return whether a text can be a host, with or without a port, but without a user name."""
    try:
        _ = urlsplit(f"any://{authority.rstrip(_PUNCTUATION)}").port
    except ValueError:  # the port is not a number, or a bracket is not closed
        return False
    return True


def _without_query(line: str) -> str:
    """Hide the values in query and fragment of the URL at the start of a line."""
    token = _TOKEN.match(line)[0]  # type: ignore[index]
    place = re.search(r"[?&#]", token)  # '&' in case the URL is itself a value in a query
    if place is None:
        return line
    shown = [token[: place.start()]]
    for mark, part in re.findall(r"([?&#])([^?&#]*)", token[place.start() :]):
        name, is_pair, _ = part.partition("=")
        if is_pair and unquote_plus(name) not in QUERY_SHOWN:
            part = f"{name}={HIDDEN}"
        elif not is_pair and mark != "#" and part.strip(_PUNCTUATION):
            part = HIDDEN
        shown.append(mark + part)
    return "".join(shown) + line[len(token) :]


def printable(line: str) -> str:
    """Remove control characters and terminal sequences from a line.

    If the line was overwritten with carriage returns, as a progress bar is, only its last form stays.
    """
    last = _SEQUENCE.sub("", line).rstrip("\r\n").rpartition("\r")[2]
    return "".join(c for c in last if c == "\t" or unicodedata.category(c) not in _CONTROL)


_CONTROL = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def shown(text: str) -> str:
    """Return a text that is safe to show: without secrets in URLs, and with `printable` lines."""
    return "\n".join(map(printable, hide_secrets(text).split("\n")))
