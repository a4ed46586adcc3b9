"""Errors of files that the user's functions import or read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from renate_stages.errors.base import RenateStagesError

SHOWN = 8  # files to list in a message
EXPORTABLE = (
    "open it relative to the code, as in `Path(__file__).parent / {name!r}`, so that the copy in "
    "export/ reads its own file"
)


class UndeclaredUserFileError(RenateStagesError):
    """The user's code imports or reads a file of the project that a stage does not depend on.

    Args:
        uses: Phrases that say which code imports or reads which files.
        lacking: By stage, the files that are missing from its deps in `dvc.yaml`.
    """

    def __init__(self, uses: Iterable[str], lacking: Mapping[str, Iterable[str]]) -> None:
        lines = []
        for stage, names in lacking.items():
            lines += [f"  {stage}:", *(f"      - {name}" for name in sorted(names))]
        *others, last = lacking
        stages = f"{', '.join(others)} and {last}" if others else last
        super().__init__(
            f"{' and '.join(uses)}, which dvc.yaml does not list in the deps of {stages}, "
            "so a change there would not rerun these stages.\n"
            "To fix this: in dvc.yaml, add these lines to the `deps` of\n" + "\n".join(lines)
        )


class ChangedInputsError(RenateStagesError):
    """An input of a stage changed while the stage ran."""

    def __init__(self, stage: str, names: Iterable[str]) -> None:
        self.names = sorted(names)
        more = f" and {len(self.names) - SHOWN} more" if len(self.names) > SHOWN else ""
        super().__init__(
            f"{', '.join(self.names[:SHOWN])}{more} changed while {stage} ran. The results "
            "belong to the earlier content, but DVC would record them for the new content, so they "
            "are not used.\n"
            f"To fix this: run {stage} again. If you restore the earlier content first, an "
            "interrupted search or training continues where it stopped."
        )


class StaleImportError(RenateStagesError):
    """A module was imported earlier in this process, and its file has changed since."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__(
            f"{', '.join(sorted(names))} changed after this process imported it, but Python still "
            "uses the earlier version.\nTo fix this: restart Python."
        )


class ExportFileError(RenateStagesError):
    """A file cannot be copied to `export/`."""

    def __init__(self, where: str, problem: str, cure: str) -> None:
        super().__init__(f"{where}: {problem}.\nTo fix this: {cure}.")


class ForeignFileError(RenateStagesError):
    """The code of an exported model uses a file of the project instead of its own copy."""

    def __init__(self, use: str, name: str) -> None:
        self.name = name
        super().__init__(
            f"{use} of the project, but an exported model can only use files in its own folder.\n"
            f"To fix this: {EXPORTABLE.format(name=name)}."
        )


class UnbuildableExportError(RenateStagesError):
    """The model cannot be built from `export/` alone, or the result is a different model."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(
            f"The model cannot be used from export/ alone: {problem}\n"
            "Nothing was written to export/. This check loads export/renate_config.py in another "
            f"folder, as serving and the next gate do.\nTo fix this: {cure}."
        )
