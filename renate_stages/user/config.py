"""Load `renate_config.py`, and call its functions with the hyperparameters that they need.

A function receives the hyperparameters in its signature. A value whose type does not match the
annotation is an error before the call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin

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
from renate_stages.user.importing import cure_of, import_file, line_of
from renate_stages.user.named import Named
from renate_stages.user.signatures import fits, name_of, named_parameters, type_hints
from renate_stages.user.used_files import UserFiles, forget_namesakes

if TYPE_CHECKING:
    from renate_stages.data import RenateDataModule
    from renate_stages.preprocessing import Preprocessing

# Each function of the user's file, and the arguments that the library itself passes to it.
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
    """Transforms of inputs and targets, one pair for each use; None: no transform.

    Args:
        train: Transforms of new examples in training.
        memory: Transforms of replayed examples: the user's `buffer_transform`, or those of `train`.
        test: Transforms for validation and holdouts.
    """

    train: tuple[Callable | None, Callable | None]
    memory: tuple[Callable | None, Callable | None]
    test: tuple[Callable | None, Callable | None]


class UserConfig:
    """The functions of one `renate_config.py`.

    Args:
        path: The file, for messages.
        functions: The functions of `FUNCTIONS` that it defines.
        watch: Records the files that the functions use; None: record those in the file's folder.
        named: The model and the data module that `params.yaml` names instead of functions.

    Attributes:
        preprocessing: What was fitted on the data. Inputs are stored before its transform, so the
            user's transforms of inputs come after it. None: stored inputs are those of the user.

    Raises:
        UserConfigError: If a function is defined although `params.yaml` names its replacement.
    """

    def __init__(
        self,
        path: Path,
        functions: Mapping[str, Callable],
        watch: Watch | None = None,
        named: Named | None = None,
    ) -> None:
        self.path = path
        self.named = named or Named()
        self.preprocessing: Preprocessing | None = None
        replaced = self.named.functions(lambda: self.preprocessing)
        for name in () if self.named.optional else replaced.keys() & functions.keys():
            key = "model" if name == "model_fn" else "data.module"
            raise UserConfigError(
                path, f"it defines {name}, but params.yaml sets {key}", "remove one of the two"
            )
        self.functions = {**replaced, **functions}
        self.watch = UserFiles(path.parent) if watch is None else watch

    @property
    def files(self) -> UserFiles:
        """The files of the project that the functions import and read."""
        assert isinstance(self.watch, UserFiles), "an exported model uses its own copies instead"
        return self.watch

    @classmethod
    def of(
        cls, project: Project, stage: str | None, *ignored: Path, named: Named | None = None
    ) -> UserConfig:
        """Load a project's `renate_config.py` for a stage.

        Args:
            project: The project; its `dvc.yaml` lists the files that a stage may use.
            stage: The stage, which must depend on every file of the project that the functions
                import or read; None: `files.check` checks all stages.
            ignored: Files and folders that are not checked.
            named: As in the constructor.

        Raises:
            RenateStagesError: See `load`.
        """
        declared, hashes = DeclaredFiles.read(project.root), project.hashes
        root = project.user_config.parent
        passing = (*ignored, *(project.outside.ignored if project.outside is not None else ()))
        watch = UserFiles(root, declared, stage if declared else None, passing, hashes)
        return cls.load(project.user_config, watch=watch, named=named)

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        stage: str | None = None,
        watch: Watch | None = None,
        named: Named | None = None,
    ) -> UserConfig:
        """Import the file and find its functions; modules in its folder can be imported too.

        Args:
            path: The user's `renate_config.py`.
            stage: The stage that loads it, which must depend on every file of the project that
                the functions use; None: check nothing.
            watch: Records these files; None: create a watch for the stage and the file's folder.
            named: As in the constructor.

        Raises:
            MissingFileError: If the file does not exist.
            UserConfigError: If it cannot be imported, or a required function is missing.
            UndeclaredUserFileError: If it uses a file that the stage does not depend on.
            StaleImportError: If a module that it imports was imported earlier and has changed since.
        """
        if not path.is_file():
            raise MissingFileError(
                path, "this file defines the model and the data", "restore it from Git"
            )
        if watch is None:
            declared = DeclaredFiles.read(path.parent) if stage is not None else None
            watch = UserFiles(path.parent, declared, stage if declared else None)
        watch.start()
        forget_namesakes(path.parent)
        with watch.running(IMPORT):
            module = import_file(path)
            if isinstance(watch, UserFiles):
                watch.take_modules(path)
        functions = {name: getattr(module, name, None) for name in FUNCTIONS}
        functions = {name: function for name, function in functions.items() if callable(function)}
        defined = [name for name in vars(module) if not name.startswith("_")]
        user = cls(path, functions, watch, named)
        for name in REQUIRED:
            waived = name == "data_module_fn" and not user.named.reads_data
            if name not in user.functions and not waived:
                raise UserConfigError(
                    path,
                    f"the function {name} is missing{did_you_mean(name, defined)}",
                    f"define `def {name}({FUNCTIONS[name][0]}, …)`, or name "
                    f"{'a model in `model`' if name == 'model_fn' else 'a module in `data.module`'} "
                    "of params.yaml",
                )
        return user

    def hyperparameters(self) -> dict[str, inspect.Parameter]:
        """Return the hyperparameters that all functions but `data_module_fn` read, by name."""
        parameters: dict[str, inspect.Parameter] = {}
        for name, function in self.functions.items():
            if name != "data_module_fn":
                for parameter in named_parameters(function):
                    if parameter.name not in FUNCTIONS[name]:
                        parameters[parameter.name] = parameter
        return parameters

    def call(self, name: str, values: Mapping[str, Any], **given: Any) -> Any:
        """Call a function with the arguments in its signature.

        Args:
            name: Name of the function.
            values: Values from `params.yaml`, whose types are checked.
            **given: Arguments of the library, which have precedence.

        Raises:
            UserConfigError: If a required argument is missing, a value has the wrong type, or the
                function fails.
        """
        function = self.functions[name]
        hints = type_hints(function)
        arguments = {}
        for parameter in named_parameters(function):
            if parameter.name in given:
                arguments[parameter.name] = given[parameter.name]
            elif parameter.name in values:
                value = values[parameter.name]
                arguments[parameter.name] = self._checked(name, parameter.name, value, hints)
            elif parameter.default is parameter.empty:
                block = "data.arguments" if name == "data_module_fn" else "hyperparameters"
                problem = f"needs '{parameter.name}', which has no default"
                cure = f"set {block}.{parameter.name} in params.yaml"
                if (built := self.named.in_place_of(name)) is not None:
                    cure = cure.replace("data.arguments", "data.module")
                    raise UserConfigError("params.yaml", f"{built} {problem}", cure)
                cure += f", or add a default in {name}"
                raise UserConfigError(self.path, f"{name} {problem}", cure)
        with self._running(name):
            return function(**arguments)

    def arguments_of(self, name: str) -> list[str]:
        """Return the names of a function's arguments."""
        return [parameter.name for parameter in named_parameters(self.functions[name])]

    def optional(self, name: str, values: Mapping[str, Any]) -> Any:
        """Call a function if the user defined it; otherwise return None."""
        return self.call(name, values) if name in self.functions else None

    def callable_of(self, name: str, values: Mapping[str, Any]) -> Callable | None:
        """Call a function that returns a callable or None; return None if it is not defined.

        Raises:
            UserResultError: If it returns something else.
        """
        result = self.optional(name, values)
        if result is not None and not callable(result):
            raise UserResultError(name, f"a {type(result).__name__}", "a callable or None")
        return result

    def data_module(
        self,
        data_path: Path,
        arguments: Mapping[str, Any],
        seed: int,
        hyperparameters: Mapping[str, Any] | None = None,
        searched: Collection[str] = (),
        scenario: Callable[[Any], Any] | None = None,
    ) -> RenateDataModule:
        """Build the data module for a folder of data, and call its `prepare_data` and `setup`.

        If it has a preprocessing, it starts with that of this configuration, the parent's.

        Args:
            data_path: The folder.
            arguments: `data.arguments` in `params.yaml`.
            seed: Seed for the data module, in [0, 2**32).
            hyperparameters: Constant hyperparameters; the function gets those that its signature
                names, unless `arguments` has them.
            searched: Names of hyperparameters that are searched, on which data cannot depend.
            scenario: Returns a scenario that cuts the data of a data module.

        Raises:
            DataModuleError: If `data_module_fn` returns something else.
            UserConfigError: If `data_module_fn` or the module's setup fails, or its signature names
                a searched hyperparameter.
        """
        known = self.arguments_of("data_module_fn")
        if self.named.module is not None:
            arguments, hyperparameters = {**self.named.arguments, **arguments}, None
        for name in arguments:
            if name not in known:
                raise UserConfigError(
                    self.path,
                    f"params.yaml sets data.arguments.{name}, but data_module_fn has no such "
                    f"argument{did_you_mean(name, known)}",
                    "remove it, or add it to the signature",
                )
        for name in known:
            if name in searched and name not in arguments:
                raise UserConfigError(
                    self.path,
                    f"data_module_fn takes '{name}', which is searched, but the data is prepared "
                    "once, before the search",
                    f"make it a constant, or set data.arguments.{name}",
                )
        values = {**(hyperparameters or {}), **arguments}
        module = self.call("data_module_fn", values, data_path=str(data_path), seed=seed)
        if not hasattr(module, "train_data") or not hasattr(module, "setup"):
            raise DataModuleError(
                f"it returned {type(module).__name__}", "return a RenateDataModule"
            )
        if self.preprocessing is not None:
            module.preprocessing = self.preprocessing
        module = scenario(module) if scenario is not None else module
        with self._running("data_module_fn"):
            module.prepare_data()
            module.setup()
        return module

    @contextmanager
    def _running(self, name: str) -> Iterator[None]:
        """Convert an exception of a user's function to an error that names the line in the file."""
        try:
            with self.watch.running(name):
                yield
        except RenateStagesError:
            raise
        except Exception as error:
            raised = f"{type(error).__name__}: {error}"
            if (built := self.named.in_place_of(name)) is not None:
                cure = cure_of(error, "correct its settings, or the data passed to it")
                raise UserConfigError("params.yaml", f"{built} failed: {raised}", cure) from error
            line = line_of(error, self.path)
            raise UserConfigError(
                self.path,
                f"{name} failed at line {line}: {raised}",
                cure_of(error, "correct that line, or the data passed to it"),
            ) from error

    def test_transforms(self, values: Mapping[str, Any]) -> tuple[Callable | None, Callable | None]:
        """Return the transforms of inputs and targets for validation and holdouts."""
        return (
            self._after_preprocessing(self.callable_of("test_transform", values)),
            self.callable_of("test_target_transform", values),
        )

    def _after_preprocessing(
        self, own: Callable | None, *, training: bool = False
    ) -> Callable | None:
        """Return the transform of stored inputs: the preprocessing, then the user's, if any."""
        if self.preprocessing is None:
            return own
        from renate_stages.data.stored import preprocessed

        return preprocessed(self.preprocessing, own, training=training)

    def transforms(self, values: Mapping[str, Any]) -> Transforms:
        """Return all transforms; those of the memory default to those of training."""
        train, memory = (
            (
                self.callable_of(f"{of}_transform", values),
                self.callable_of(f"{of}_target_transform", values),
            )
            for of in ("train", "buffer")
        )
        first = partial(self._after_preprocessing, training=True)
        replayed = first(memory[0] or train[0]), memory[1] or train[1]
        return Transforms((first(train[0]), train[1]), replayed, self.test_transforms(values))

    def _checked(self, function: str, name: str, value: Any, hints: Mapping[str, Any]) -> Any:
        expected = hints.get(name, Any)
        if fits(value, expected):
            return tuple(value) if get_origin(expected) is tuple or expected is tuple else value
        raise UserConfigError(
            self.path,
            f"{function} expects {name}: {name_of(expected)}, but params.yaml sets {value!r}",
            f"set a value of type {name_of(expected)}, or change the annotation",
        )
