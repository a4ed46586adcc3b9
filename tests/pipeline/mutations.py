"""Mutate the content of small files: wrong types, damaged bytes, attacks on a format.

    Mutator(random.Random(7)).mutate("metrics/data.json", content)

The same random generator gives the same changes.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

LONG, WIDE, DEEP = 20_000, 1_000_000, 3_000
CONFLICT = b"<<<<<<< HEAD\n%b\n=======\n%b\n>>>>>>> theirs\n"


@dataclass(frozen=True)
class Raw:
    """A value that is written verbatim instead of as a quoted string."""

    text: str


VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 10**12, 2**63, 1e308, -0.5, 1e-320, "", " ", "x" * LONG),
    *("../../../etc/passwd", "/etc/passwd", "~", ".", "a\nb", "ok\x00ok", "\x1b[2J", "é\u2028"),
    *("1", "true", "update-1", "2026-01-01", "0" * 32, "0" * 32 + ".dir", "${oc.env:HOME}"),
    *([], {}, [[]], {"": ""}, {"a": {"b": [1]}}, [None], ["a", "a"], [1, "a", None]),
    Raw("1" + "0" * 400),
    Raw('"\\ud800"'),
)
JSON_VALUES = (
    *(Raw("NaN"), Raw("Infinity"), Raw("-Infinity"), Raw("1E400"), Raw("1" + "0" * 5000)),
    Raw("[" * DEEP + "]" * DEEP),
    Raw('{"a":' * DEEP + "1" + "}" * DEEP),
)
YAML_VALUES = (
    *map(Raw, (".nan", ".inf", "-.inf", "1e400", "0x7fffffffffffffffffff", "1_0", "1:30:00")),
    *map(Raw, ("2026-01-01", "2026-99-99", "!!binary aGk=", "!!int x", "!!float x", "!!bool x")),
    *map(Raw, ("!!timestamp x", "!!set {a, b}", "!!omap [a: 1]", "!x y", "=", "*missing")),
    *map(Raw, ("&anchor a", "{<<: {a: 1}}", "{<<: 1}", "{? [a]: 1}", "&a [*a]")),
    Raw("!!python/object/apply:os.system [touch executed]"),
    Raw("[" * 400 + "]" * 400),
    Raw("[" * DEEP + "]" * DEEP),
)
BOMB = "\n".join(
    [
        "a0: &a0 [x, x, x, x, x, x, x, x, x]",
        *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)),
    ]
)
KEYS = ("unknown", "", "a.b", "..", "path", "<<", "update", "__class__", "1", "x" * 300, "null")
CELLS = ("", "nan", "inf", "-inf", "1e999", "-1", "0", "1" * 400, "1" * 5000)
CELLS += ("x", "é", "1,2", "true")


class Mutator:
    """Draws random changes.

    Args:
        draws: Random generator.
    """

    def __init__(self, draws: random.Random) -> None:
        self.draws = draws

    def mutate(self, name: str, content: bytes) -> tuple[str, bytes]:
        """Return a short description of a change to a file, and the changed content.

        Args:
            name: Name of the file; its suffix determines the format.
            content: Content before the change.
        """
        kinds = {".json": self.json, ".csv": self.csv}
        kinds |= dict.fromkeys((".yaml", ".lock", ".dvc"), self.yaml)
        kind = kinds.get(f".{name.rpartition('.')[2]}", self.text)
        if b"\0" in content or self.draws.random() > 0.75:
            return self.damage(content)
        return kind(content)

    # -- any file ---------------------------------------------------------------------------------

    def damage(self, content: bytes) -> tuple[str, bytes]:
        """Change bytes without regard to the format."""
        place = self.draws.randrange(len(content) + 1)
        lines = content.splitlines(keepends=True) or [b""]
        line = self.draws.randrange(len(lines))
        text = content.decode(errors="replace")
        flipped = bytearray(content or b"\0")
        flipped[place % len(flipped)] ^= 1 << self.draws.randrange(8)
        changes = {
            "cut off": content[:place],
            "begun late": content[place:],
            "emptied": b"",
            "one bit flipped": bytes(flipped),
            "a NUL put in": content[:place] + b"\0" + content[place:],
            "a byte order mark put in front": b"\xef\xbb\xbf" + content,
            "in UTF-16": text.encode("utf-16"),
            "with Windows' line ends": content.replace(b"\n", b"\r\n"),
            "with old Macs' line ends": content.replace(b"\n", b"\r"),
            "conflict marks around a line": b"".join(
                [*lines[:line], CONFLICT % (lines[line], lines[line]), *lines[line + 1 :]]
            ),
            "conflict marks around all": CONFLICT % (content, content),
            "a lone conflict mark": content[:place] + b"\n=======\n" + content[place:],
            "a very long line put in": b"".join([*lines[:line], b"x" * WIDE, *lines[line:]]),
            "a line left out": b"".join([*lines[:line], *lines[line + 1 :]]),
            "a line twice": b"".join([*lines[:line], lines[line], *lines[line:]]),
            "twice": content + content,
            "two lines swapped": b"".join(
                [*lines[:line], *reversed(lines[line : line + 2]), *lines[line + 2 :]]
            ),
            "of zeros": b"\0" * len(content),
            "of spaces": b" \n" * 10,
            "in Latin-1": text.encode("latin-1", "replace") + b"\xe9",
            "a pickle": b"cos\nsystem\n(S'touch executed'\ntR.",
        }
        how = self.draws.choice(sorted(changes))
        return how, changes[how]

    def text(self, content: bytes) -> tuple[str, bytes]:
        """Change a word of a text file, such as a settings file."""
        text = content.decode(errors="replace")
        words = list(re.finditer(r"[^\s=\[\]\"]+", text))
        if not words:
            return self.damage(content)
        word = self.draws.choice(words)
        value = self.draws.choice(
            ["", "x", "-1", "/etc", "../..", "[x]", "'", "x" * LONG, "%(x)s", "~"]
        )
        changed = text[: word.start()] + value + text[word.end() :]
        return f"{word.group()!r:.40} is {value!r:.20}", changed.encode()

    # -- formats ----------------------------------------------------------------------------------

    def json(self, content: bytes) -> tuple[str, bytes]:
        """Change a value or a key of a JSON file."""
        return self._structured(content, json.loads, _json_text, JSON_VALUES)

    def yaml(self, content: bytes) -> tuple[str, bytes]:
        """Change a value or a key of a YAML file, or use a feature special to YAML."""
        special = self.draws.random()
        if special < 0.02:
            return "an alias bomb", BOMB.encode() + b"\n" + content
        if special < 0.04:
            return "an alias bomb alone", BOMB.encode()
        if special < 0.06:
            return "a document after it", content + b"\n---\na: 1\n"
        return self._structured(content, yaml.safe_load, _yaml_text, YAML_VALUES)

    def _structured(self, content, parse, write, values) -> tuple[str, bytes]:
        try:
            whole = parse(content)
        except (ValueError, yaml.YAMLError):
            return self.damage(content)
        places = list(_places(whole))
        if not places:
            return self.damage(content)
        changed = copy.deepcopy(whole)
        path = self.draws.choice(places)
        shown = ".".join(map(str, path)) or "the whole"
        how = self.draws.choice(
            ["value", "value", "value", "value", "delete", "key", "other", "swap"]
        )
        if how == "value" or not path:
            value = self.draws.choice((*VALUES, *values))
            _put(changed, path, value)
            changed = value if not path else changed
            what = f"{shown} is {_shown(value)}"
        elif how == "delete":
            del _at(changed, path[:-1])[path[-1]]
            what = f"without {shown}"
        elif how == "other":
            other = self.draws.choice(places)
            _put(changed, path, copy.deepcopy(_at(whole, other)))
            what = f"{shown} is a copy of {'.'.join(map(str, other)) or 'the whole'}"
        elif how == "swap":
            parent = _at(changed, path[:-1])
            if isinstance(parent, list):
                self.draws.shuffle(parent)
                parent += copy.deepcopy(parent[: self.draws.randrange(2)])
            else:
                names, each = list(parent), list(parent.values())
                self.draws.shuffle(each)
                parent.update(zip(names, each, strict=True))
            what = f"the values of {'.'.join(map(str, path[:-1])) or 'the whole'} shuffled"
        else:
            parent, key = _at(changed, path[:-1]), self.draws.choice(KEYS)
            value = self.draws.choice((*VALUES, *values))
            if isinstance(parent, list):
                parent.insert(path[-1], value)
            elif self.draws.random() < 0.3:  # the same key twice
                key = str(path[-1])
                parent[Raw(key)] = value
            else:
                parent[key] = value
            what = f"{key!r:.20}: {_shown(value)} next to {shown}"
        return what, write(changed)

    def csv(self, content: bytes) -> tuple[str, bytes]:
        """Change a cell, a row or a column of a CSV file."""
        rows = list(csv.reader(io.StringIO(content.decode(errors="replace"))))
        if not rows or not rows[0]:
            return self.damage(content)
        line = self.draws.randrange(len(rows))
        column = self.draws.randrange(len(rows[0]))
        ways = "cell cell cell short long without twice rename none quote wide"
        how = self.draws.choice(ways.split())
        what = f"line {line + 1}: {how}"
        if how == "cell":
            value = self.draws.choice(CELLS)
            rows[line][min(column, len(rows[line]) - 1) if rows[line] else 0 : column + 1] = [value]
            what = f"line {line + 1}, cell {column + 1} is {value!r:.20}"
        elif how == "short":
            rows[line] = rows[line][:column]
        elif how == "long":
            rows[line] = [*rows[line], "1"]
        elif how == "without":
            rows = [[*row[:column], *row[column + 1 :]] for row in rows]
            what = f"without column {column + 1}"
        elif how == "twice":
            rows.insert(line, rows[line])
        elif how == "rename":
            rows[0][column] = self.draws.choice(["", "x", rows[0][0], "update", "é", "x" * LONG])
            what = f"column {column + 1} is called {rows[0][column]!r:.20}"
        elif how == "none":
            rows = rows[: self.draws.randrange(2)]
            what = "without rows"
        elif how == "wide":
            rows[line] = rows[line] + ["1"] * 200_000
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows(rows)
        text = stream.getvalue()
        if how == "quote":
            place = self.draws.randrange(len(text) + 1)
            text = text[:place] + '"' + text[place:]
        return what, text.encode()


def _places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a structure, starting with the root."""
    yield path
    keys = node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        yield from _places(node[key], (*path, key))


def _at(node: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        node = node[key]
    return node


def _put(node: Any, path: tuple[Any, ...], value: Any) -> None:
    if path:
        _at(node, path[:-1])[path[-1]] = value


def _shown(value: Any) -> str:
    text = value.text if isinstance(value, Raw) else repr(value)
    return text if len(text) < 40 else f"{text[:30]}... ({len(text)} characters)"


def _json_text(node: Any) -> bytes:
    return _flow(node).encode("utf-8", "surrogatepass")


def _flow(node: Any) -> str:
    """Return a structure as JSON, with raw texts verbatim."""
    if isinstance(node, Raw):
        return node.text
    if isinstance(node, dict):
        parts = [
            f"{json.dumps(key.text if isinstance(key, Raw) else str(key))}: {_flow(value)}"
            for key, value in node.items()
        ]
        return f"{{{', '.join(parts)}}}"
    if isinstance(node, list):
        return f"[{', '.join(map(_flow, node))}]"
    return json.dumps(node, default=str, ensure_ascii=False)


def _yaml_text(node: Any) -> bytes:
    """Return a structure as YAML, in block style where possible, with raw texts verbatim."""
    return "\n".join(_block(node)).encode("utf-8", "replace") + b"\n"


def _block(node: Any, depth: int = 0) -> Iterator[str]:
    space = "  " * depth
    if isinstance(node, dict) and node:
        for key, value in node.items():
            name = json.dumps(key.text) if isinstance(key, Raw) else _scalar(key)
            if isinstance(value, dict | list) and value:
                yield f"{space}{name}:"
                yield from _block(value, depth + 1)
            else:
                yield f"{space}{name}: {_scalar(value)}"
    elif isinstance(node, list) and node:
        for value in node:
            if isinstance(value, dict | list) and value:
                first, *rest = _block(value, depth + 1)
                yield f"{space}- {first.lstrip()}"
                yield from rest
            else:
                yield f"{space}- {_scalar(value)}"
    else:
        yield f"{space}{_scalar(node)}"


def _scalar(value: Any) -> str:
    if isinstance(value, Raw):
        return value.text
    plain = isinstance(value, str) and re.fullmatch(r"[a-zA-Z_][\w./-]*", value)
    if plain and value.lower() not in ("true", "false", "null", "yes", "no", "on", "off", "y", "n"):
        return value
    return json.dumps(value, default=str)
