"""Import `renate_config.py`, and name the line of it in which an error was raised."""

from __future__ import annotations

import importlib.util
import sys
import types
from importlib.machinery import SourceFileLoader
from pathlib import Path

from renate_stages.errors import RenateStagesError, UserConfigError


class _FromSource(SourceFileLoader):
    """Compiles a file's source; bytecode may be of an earlier version of equal size and second."""

    def get_code(self, fullname: str) -> types.CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def import_file(path: Path) -> types.ModuleType:
    """Import the user's file as the module `renate_config`; its folder stays on the import path.

    Raises:
        UserConfigError: If it fails; the message names the line.
    """
    folder, file = str(path.parent.resolve()), str(path.absolute())
    loader = _FromSource("renate_config", file)
    spec = importlib.util.spec_from_file_location("renate_config", file, loader=loader)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["renate_config"] = module
    if folder in sys.path:  # it may come after the folder of another project
        sys.path.remove(folder)
    # The folder stays on the path, because a function may import from it when it is called.
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except RenateStagesError:
        raise
    except Exception as error:
        line = line_of(error, path)
        raise UserConfigError(
            path,
            f"line {line}: {type(error).__name__}: {error}",
            cure_of(error, "correct that line"),
        ) from error
    return module


def cure_of(error: Exception, cure: str) -> str:
    """Return what the user should do about an error in their code."""
    if isinstance(error, FileNotFoundError | ModuleNotFoundError):
        return f"{cure}; a job in the cloud has only the files in the stage's deps in dvc.yaml"
    return cure


def line_of(error: BaseException, path: Path) -> int | str:
    """Return the last line of a file that an error passed through; "?" if it passed through none."""
    if isinstance(error, SyntaxError):
        return error.lineno or "?"
    line: int | str = "?"
    trace = error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename) == path.absolute():
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
