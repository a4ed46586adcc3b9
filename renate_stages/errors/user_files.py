"""Mistakes with the files that the user's functions are made of and read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from renate_stages.errors.base import RenateStagesError

SHOWN = 8  # names of files in a message
EXPORTABLE = (
    "open it relative to the code, as in `Path(__file__).parent / {name!r}`, so that the copy in "
    "export/ reads its own"
)


class UndeclaredUserFileError(RenateStagesError):
    """The user's code imports or reads a file of the project that a stage does not depend on.

    Args:
        uses: Who imports or reads which files, a phrase each.
        lacking: By stage, the files that `dvc.yaml` lacks among its deps.
    """

    def __init__(self, uses: Iterable[str], lacking: Mapping[str, Iterable[str]]) -> None:
        lines = []
        for stage, names in lacking.items():
            lines += [f"  {stage}:", *(f"      - {name}" for name in sorted(names))]
        *others, last = lacking
        stages = f"{', '.join(others)} and {last}" if others else last
        super().__init__(
            f"{' and '.join(uses)}, which dvc.yaml does not list among the deps of {stages}: "
            "a change there would not rerun these stages.\n"
            "To fix this: in dvc.yaml, add these lines to the `deps` of\n" + "\n".join(lines)
        )


class ChangedInputsError(RenateStagesError):
    """Something that a stage had read was edited while it ran."""

    def __init__(self, stage: str, names: Iterable[str]) -> None:
        self.names = sorted(names)
        more = f" and {len(self.names) - SHOWN} more" if len(self.names) > SHOWN else ""
        super().__init__(
            f"{', '.join(self.names[:SHOWN])}{more} changed while {stage} ran. What {stage} computed belongs to "
            "the earlier content, and DVC would record it for the new one, so it does not count.\n"
            "To fix this: run it again; with the earlier content restored, an interrupted search or "
            "training goes on where it was."
        )


class StaleImportError(RenateStagesError):
    """A module was imported earlier in this process, and its file has changed since."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__(
            f"{', '.join(sorted(names))} changed after this process imported it, and Python goes on "
            "with what it imported.\nTo fix this: restart Python."
        )


class ExportFileError(RenateStagesError):
    """A file that `export/` is to carry cannot be carried."""

    def __init__(self, where: str, problem: str, cure: str) -> None:
        super().__init__(f"{where}: {problem}.\nTo fix this: {cure}.")


class ForeignFileError(RenateStagesError):
    """The code of an exported model uses a file of the project in place of its own copy."""

    def __init__(self, use: str, name: str) -> None:
        self.name = name
        super().__init__(
            f"{use} of the project, and an exported model has only the files in its own folder.\n"
            f"To fix this: {EXPORTABLE.format(name=name)}."
        )


class UnbuildableExportError(RenateStagesError):
    """The model cannot be built from `export/` alone, or is another one there."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(
            f"The model cannot be used from export/ alone: {problem}\n"
            "Nothing was put into export/. A process that loads export/renate_config.py in another "
            f"folder, as serving and the next gate do, found this.\nTo fix this: {cure}."
        )
