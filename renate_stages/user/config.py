"""Load `renate_config.py`, and call its functions with the arguments that they name.

A function receives those hyperparameters that its signature names; a value whose type is not the
annotated one is refused before the call.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

from renate_stages.errors import (
    DataModuleError,
    MissingFileError,
    RenateStagesError,
    UserConfigError,
    UserResultError,
    did_you_mean,
)
from renate_stages.project import Project
from renate_stages.user.declared_files import IMPORT, DeclaredFiles
from renate_stages.user.file_watch import Watch
from renate_stages.user.used_files import UserFiles, forget_namesakes

if TYPE_CHECKING:
    from renate_stages.data import RenateDataModule

# Each function of the user's file, and the arguments that the library itself gives it.
FUNCTIONS: dict[str, tuple[str, ...]] = {
    "model_fn": ("model_state_url",),
    "data_module_fn": ("data_path", "seed"),
    "loss_fn": (),
    "optimizer_fn": (),
    "lr_scheduler_fn": (),
    "metrics_fn": (),
    "train_transform": (),
    "train_target_transform": (),
    "test_transform": (),
    "test_target_transform": (),
    "buffer_transform": (),
    "buffer_target_transform": (),
    "feature_fn": (),
}
REQUIRED = ("model_fn", "data_module_fn")


@dataclass(frozen=True)
class Transforms:
    """Per-example callables, on inputs and targets; None leaves them as they are stored.

    Args:
        train: For new examples in training.
        memory: For replayed examples; the user's `buffer_transform`, else the one for training.
        test: For validation and holdouts.
    """

    train: tuple[Callable | None, Callable | None]
    memory: tuple[Callable | None, Callable | None]
    test: tuple[Callable | None, Callable | None]


class UserConfig:
    """The functions of one `renate_config.py`.

    Args:
        path: The file, for messages.
        functions: Those of `FUNCTIONS` that it defines.
        watch: Takes notice of the files that they use; None: those of the file's folder.
    """

    def __init__(
        self, path: Path, functions: Mapping[str, Callable], watch: Watch | None = None
    ) -> None:
        self.path = path
        self.functions = dict(functions)
        self.watch = UserFiles(path.parent) if watch is None else watch

    @property
    def files(self) -> UserFiles:
        """The files of the project that the functions are made of and read."""
        assert isinstance(self.watch, UserFiles), "the copy of an exported model has its own"
        return self.watch

    @classmethod
    def of(cls, project: Project, stage: str | None, *ignored: Path) -> UserConfig:
        """Load a project's `renate_config.py` for a stage.

        Args:
            project: Where it lies; its `dvc.yaml` says what a stage may use.
            stage: The stage, which must depend on every file of the project that the functions
                import or read; None: `files.check` asks that of all stages.
            ignored: Files and folders that do not count.

        Raises:
            RenateStagesError: As `load`.
        """
        declared, hashes = DeclaredFiles.read(project.root), project.hashes
        root = project.user_config.parent
        passing = (*ignored, *(project.outside.ignored if project.outside is not None else ()))
        watch = UserFiles(root, declared, stage if declared else None, passing, hashes)
        return cls.load(project.user_config, watch=watch)

    @classmethod
    def load(
        cls, path: Path, *, stage: str | None = None, watch: Watch | None = None
    ) -> UserConfig:
        """Import the file, with its folder importable, and find its functions.

        Args:
            path: The user's `renate_config.py`.
            stage: The stage that loads it, which must depend on every file of the project that
                the functions use; None checks nothing.
            watch: Takes notice of these files; None: one for the stage and the file's folder.

        Raises:
            MissingFileError: If there is no such file.
            UserConfigError: If it cannot be imported, or lacks a required function.
            UndeclaredUserFileError: If it uses a file the stage does not depend on.
            StaleImportError: If a module that it imports was imported before, and has changed.
        """
        if not path.is_file():
            raise MissingFileError(path, "it defines the model and the data", "restore it from Git")
        if watch is None:
            declared = DeclaredFiles.read(path.parent) if stage is not None else None
            watch = UserFiles(path.parent, declared, stage if declared else None)
        watch.start()
        forget_namesakes(path.parent)
        with watch.running(IMPORT):
            module = _import_file(path)
            if isinstance(watch, UserFiles):
                watch.take_modules(path)
        functions = {name: getattr(module, name, None) for name in FUNCTIONS}
        found = {name: function for name, function in functions.items() if callable(function)}
        defined = [name for name in vars(module) if not name.startswith("_")]
        for name in REQUIRED:
            if name not in found:
                raise UserConfigError(
                    path,
                    f"there is no function {name}{did_you_mean(name, defined)}",
                    f"define `def {name}({FUNCTIONS[name][0]}, …)`",
                )
        return cls(path, found, watch)

    def hyperparameters(self) -> dict[str, inspect.Parameter]:
        """Return what the functions other than `data_module_fn` read, by name."""
        found: dict[str, inspect.Parameter] = {}
        for name, function in self.functions.items():
            if name != "data_module_fn":
                for parameter in _named_parameters(function):
                    if parameter.name not in FUNCTIONS[name]:
                        found[parameter.name] = parameter
        return found

    def call(self, name: str, values: Mapping[str, Any], **given: Any) -> Any:
        """Call a function with those of `values` and `given` that its signature names.

        Raises:
            UserConfigError: If a required argument is missing, a value has the wrong type, or the
                function itself fails.
        """
        function = self.functions[name]
        hints = _type_hints(function)
        arguments = {}
        for parameter in _named_parameters(function):
            if parameter.name in given:
                arguments[parameter.name] = given[parameter.name]
            elif parameter.name in values:
                value = values[parameter.name]
                arguments[parameter.name] = self._checked(name, parameter.name, value, hints)
            elif parameter.default is parameter.empty:
                block = "data.arguments" if name == "data_module_fn" else "hyperparameters"
                raise UserConfigError(
                    self.path,
                    f"{name} needs '{parameter.name}', which has no default",
                    f"give {block}.{parameter.name} in params.yaml, or a default in {name}",
                )
        with self._running(name):
            return function(**arguments)

    def arguments_of(self, name: str) -> list[str]:
        """Return the names of a function's arguments."""
        return [parameter.name for parameter in _named_parameters(self.functions[name])]

    def optional(self, name: str, values: Mapping[str, Any]) -> Any:
        """Call a function if the user defined it, else return None."""
        return self.call(name, values) if name in self.functions else None

    def callable_of(self, name: str, values: Mapping[str, Any]) -> Callable | None:
        """Call a function that returns what is called later; None where it is missing or says so.

        Raises:
            UserResultError: If it returns something else.
        """
        found = self.optional(name, values)
        if found is not None and not callable(found):
            raise UserResultError(name, f"a {type(found).__name__}", "a callable or None")
        return found

    def data_module(
        self, data_path: Path, arguments: Mapping[str, Any], seed: int
    ) -> RenateDataModule:
        """Build the data module over a folder of data, prepared and set up.

        Raises:
            DataModuleError: If `data_module_fn` returns something else.
            UserConfigError: If it, or the module's setup, fails.
        """
        known = self.arguments_of("data_module_fn")
        for name in arguments:
            if name not in known:
                raise UserConfigError(
                    self.path,
                    f"params.yaml gives data.arguments.{name}, which data_module_fn does not "
                    f"take{did_you_mean(name, known)}",
                    "remove it, or add it to the signature",
                )
        module = self.call("data_module_fn", arguments, data_path=str(data_path), seed=seed)
        if not hasattr(module, "train_data") or not hasattr(module, "setup"):
            raise DataModuleError(
                f"it returned {type(module).__name__}", "return a RenateDataModule"
            )
        for split in ("train", "val", "test"):
            if hasattr(module, f"{split}_collate_fn"):
                raise DataModuleError(
                    f"{type(module).__name__} defines {split}_collate_fn, which is not used",
                    "return examples of equal shapes, or list fields of varying length in "
                    "ragged_fields: batches are padded with zeros",
                )
        with self._running("data_module_fn"):
            module.prepare_data()
            module.setup()
        return module

    @contextmanager
    def _running(self, name: str) -> Iterator[None]:
        """Turn what a user's function raises into a message with its line in their file."""
        try:
            with self.watch.running(name):
                yield
        except RenateStagesError:
            raise
        except Exception as error:
            line, raised = _line_of(error, self.path), f"{type(error).__name__}: {error}"
            raise UserConfigError(
                self.path,
                f"{name} failed at line {line}: {raised}",
                _cure(error, "correct that line, or its inputs"),
            ) from error

    def test_transforms(self, values: Mapping[str, Any]) -> tuple[Callable | None, Callable | None]:
        """Return those of inputs and of targets that come before a model is measured."""
        return (
            self.callable_of("test_transform", values),
            self.callable_of("test_target_transform", values),
        )

    def transforms(self, values: Mapping[str, Any]) -> Transforms:
        """Return the transforms; the memory's default to those of training."""
        train, memory = (
            (
                self.callable_of(f"{of}_transform", values),
                self.callable_of(f"{of}_target_transform", values),
            )
            for of in ("train", "buffer")
        )
        test = self.test_transforms(values)
        return Transforms(train, (memory[0] or train[0], memory[1] or train[1]), test)

    def _checked(self, function: str, name: str, value: Any, hints: Mapping[str, Any]) -> Any:
        expected = hints.get(name, Any)
        if _fits(value, expected):
            return tuple(value) if get_origin(expected) is tuple or expected is tuple else value
        raise UserConfigError(
            self.path,
            f"{function} takes {name}: {_name_of(expected)}, but params.yaml gives {value!r}",
            f"write a {_name_of(expected)} for it in params.yaml, or change the annotation",
        )


class _FromSource(SourceFileLoader):
    """Compiles a file as it is: bytecode may be of one of the same size and second, and lies beside."""

    def get_code(self, fullname: str) -> types.CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _import_file(path: Path) -> types.ModuleType:
    folder, file = str(path.parent.resolve()), str(path.absolute())
    loader = _FromSource("renate_config", file)
    spec = importlib.util.spec_from_file_location("renate_config", file, loader=loader)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["renate_config"] = module
    if folder in sys.path:  # maybe behind that of another project
        sys.path.remove(folder)
    sys.path.insert(0, folder)  # it stays: a function may import a neighbour when it is called
    try:
        spec.loader.exec_module(module)
    except RenateStagesError:
        raise
    except Exception as error:
        line = _line_of(error, path)
        raise UserConfigError(
            path,
            f"line {line}: {type(error).__name__}: {error}",
            _cure(error, "correct that line"),
        ) from error
    return module


def _cure(error: Exception, cure: str) -> str:
    """Return what to do about an error of the user's code."""
    if isinstance(error, FileNotFoundError | ModuleNotFoundError):
        return f"{cure}; a job in the cloud has only the files in the stage's deps in dvc.yaml"
    return cure


def _line_of(error: BaseException, path: Path) -> int | str:
    if isinstance(error, SyntaxError):
        return error.lineno or "?"
    line: int | str = "?"
    trace = error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename) == path.absolute():
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _named_parameters(function: Callable) -> list[inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [each for each in inspect.signature(function).parameters.values() if each.kind in kinds]


def _type_hints(function: Callable) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except (NameError, TypeError):  # an annotation that exists for type checkers only
        return {}


def _fits(value: Any, expected: Any) -> bool:
    """Whether a value from YAML is of an annotated type; what is not a plain type fits."""
    origin = get_origin(expected)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(expected))
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if expected in (bool, str):
        return isinstance(value, expected)
    if expected is None or expected is type(None):
        return value is None
    if expected in (list, tuple) or origin in (list, tuple):
        return isinstance(value, list | tuple)
    return True


def _name_of(expected: Any) -> str:
    return expected.__name__ if isinstance(expected, type) else str(expected)
