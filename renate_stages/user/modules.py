"""Find the project's modules that this process has imported."""

from __future__ import annotations

import ast
import os
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

PACKAGES = tuple({sysconfig.get_path(n) for n in ("stdlib", "platstdlib", "purelib", "platlib")})

_of_packages: dict[str, ModuleType] = {}
"""Modules that do not belong to a project; there are thousands, and this is asked often."""


def project_modules(root: Path) -> dict[str, Path]:
    """Return the file of each module that was imported from a project, by the module's name.

    Modules of this library are left out. For a symbolic link, the location of the link counts.

    Args:
        root: The project's folder, resolved.
    """
    files = {}
    inside = f"{root}{os.sep}"
    others = [
        each for each in list(sys.modules.items()) if _of_packages.get(each[0]) is not each[1]
    ]
    for name, module in others:
        source = getattr(module, "__file__", None)
        if not isinstance(source, str) or source.startswith(PACKAGES):
            _of_packages[name] = module  # resolving thousands of files would take a second
            continue
        spec = getattr(module, "__spec__", None)
        if getattr(spec, "name", name).startswith("renate_stages"):
            continue  # by its spec, since a module of ours that runs is called __main__
        file = next((each for each in _locations(source) if each.startswith(inside)), None)
        if file is not None and "site-packages" not in Path(file).parts:
            files[name] = Path(file)
    return files


@cache
def _locations(source: str) -> tuple[str, ...]:
    """Return the absolute path of a module's file, with symbolic links and without."""
    if not Path(source).is_absolute():  # in some modules of torch
        return ()
    absolute = os.path.abspath(source)  # noqa: PTH100 -- keeps symbolic links
    return absolute, os.path.realpath(source)


def imported_from(config: Path, root: Path) -> set[Path]:
    """Return the files of a project's imported modules that a file imports, directly or indirectly.

    Args:
        config: The file.
        root: The project's folder.
    """
    modules = project_modules(root.resolve())
    files: set[Path] = set()
    waiting = [("", config)]
    while waiting:
        package, path = waiting.pop()
        for name in _named(path, package):
            file = modules.get(name)
            if file is not None and file not in files:
                files.add(file)
                inside = name if file.name == "__init__.py" else name.rpartition(".")[0]
                waiting.append((inside, file))
    return files


def _named(path: Path, package: str) -> Iterator[str]:
    """Yield the modules and packages that the import statements of a file may refer to."""
    try:
        tree = ast.parse(path.read_bytes()) if path.suffix == ".py" else ast.Module([], [])
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            around = package.split(".") if node.level else []
            around = around[: len(around) - node.level + 1] if node.level else []
            base = ".".join([*around, *([node.module] if node.module else [])])
            names = [base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))
