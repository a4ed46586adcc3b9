"""The search space: constants, and the domains of searched hyperparameters."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from renate_stages.errors import InvalidParamsError, did_you_mean
from renate_stages.learners import registry
from renate_stages.learners.avalanche import catalog
from renate_stages.params import default_spaces
from renate_stages.params.auto_learner import possible_learners
from renate_stages.params.domains import Domain

AUTO = "auto"
Configuration = dict[str, Any]


@dataclass(frozen=True)
class SearchSpace:
    """Constants, and domains of searched hyperparameters; falsy if nothing is searched.

    Args:
        learner: The learner; None if it is searched, then `domains` has `learner`.
        constants: Hyperparameters with the same value in every trial.
        domains: The searched hyperparameters by name; may include `max_epochs`.
        automatic: Names whose domain is the default one (`auto`).
        shared: Names that the optimizer or the user's functions read, for any learner.

    Example:
        >>> space = SearchSpace.of("ER", {"batch_size": 32, "learning_rate": {"uniform": [0, 1]}})
        >>> space.complete({"learning_rate": 0.25})
        {'batch_size': 32, 'learning_rate': 0.25}
    """

    learner: str | None
    constants: dict[str, Any]
    domains: dict[str, Domain]
    automatic: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()

    @classmethod
    def of(cls, learner: Any, hyperparameters: Any, task: str = AUTO) -> SearchSpace:
        """Parse `learner` and `hyperparameters` of `params.yaml`.

        Args:
            learner: A name, a choice of names, or `auto`: all learners that suit these parameters,
                of which `among` leaves those that suit the update.
            hyperparameters: Constants and spaces by name, or `auto`.
            task: As in `params.yaml`.

        Raises:
            InvalidParamsError: If there are problems; lists all of them.
        """
        problems: list[str] = []
        domains: dict[str, Domain] = {}
        if learner == AUTO:
            learner = {"choice": list(possible_learners(hyperparameters, task))}
        names = _learners(learner, problems)
        if isinstance(learner, Mapping) and "avalanche" not in learner and names:
            domains["learner"] = Domain("choice", tuple(names))
        spaces, constants = _divided(hyperparameters, names, problems)
        automatic = frozenset(name for name, content in spaces.items() if content == AUTO)
        defaults = default_spaces.of_learners(names, constants.get("optimizer"))
        for name, content in spaces.items():
            if content == AUTO and name not in defaults:
                known = ", ".join(sorted(defaults)) or "none for this learner"
                hint = did_you_mean(name, defaults)
                problems.append(
                    f"hyperparameters.{name}: it has no default space{hint} (known: {known})"
                )
                continue
            try:
                domains[name] = Domain.parse(defaults[name] if content == AUTO else content)
            except ValueError as error:
                problems.append(f"hyperparameters.{name}: {error}")
        problems += _problems_of_max_epochs(domains, constants)
        if problems:
            raise InvalidParamsError("params.yaml", problems)
        fixed = None if "learner" in domains else names[0]
        return cls(fixed, constants, domains, automatic)

    def __bool__(self) -> bool:
        return bool(self.domains)

    @property
    def learners(self) -> tuple[str, ...]:
        """The learners that trials may use."""
        return self.domains["learner"].values if self.learner is None else (self.learner,)

    def most_epochs(self, otherwise: int | None) -> int | None:
        """Return the maximum epochs of a trial; `otherwise` if `max_epochs` is not searched."""
        domain = self.domains.get("max_epochs")
        return otherwise if domain is None else max(_extremes(domain))

    def read_by(self, names: Collection[str]) -> SearchSpace:
        """Return the space for a project whose optimizer and functions read these names.

        A default space (`auto`) of a name that nothing reads is left out.

        Raises:
            InvalidParamsError: If nothing reads another searched hyperparameter.
        """
        read = {"learner", "max_epochs", *names}.union(*map(taken_by, self.learners))
        unread = [name for name in self.domains if name not in read]
        problems = [
            f"hyperparameters.{name}: it is searched, but nothing reads it: neither "
            f"{', '.join(self.learners)}, nor its optimizer, nor a function of renate_config.py"
            for name in unread
            if name not in self.automatic
        ]
        if problems:
            raise InvalidParamsError("params.yaml", problems)
        domains = {name: each for name, each in self.domains.items() if name not in unread}
        return replace(self, domains=domains, shared=frozenset(names))

    def among(self, learners: Sequence[str]) -> SearchSpace:
        """Return the space for fewer learners, without what only the others read.

        Args:
            learners: Some of `self.learners`, which is a choice; the first is the middle.
        """
        kept = replace(self, domains={"learner": Domain("choice", tuple(learners))})
        read = {"max_epochs", *self.shared}.union(*map(taken_by, learners))
        kept.domains.update({n: self.domains[n] for n in self.domains if n in read})
        return kept

    def complete(self, sample: Mapping[str, Any]) -> Configuration:
        """Return the configuration of a trial: the constants and the drawn values.

        Hyperparameters that only other learners use are left out.

        Args:
            sample: A value for each domain, drawn from `syne_tune()` by a scheduler.
        """
        drawn = {name: each.decode(sample[name]) for name, each in self.domains.items()}
        return self.constants | self._active(drawn)

    def middle(self) -> Configuration:
        """Return the configuration in the middle of all ranges; of a choice the first value."""
        return self.constants | self._active({n: each.middle() for n, each in self.domains.items()})

    def accepts(self, configuration: Mapping[str, Any]) -> Configuration:
        """Return those values of an earlier configuration that are in this space."""
        return {
            name: configuration[name]
            for name, domain in self.domains.items()
            if name in configuration and domain.contains(configuration[name])
        }

    def is_active(self, name: str, learner: str | None) -> bool:
        """Return whether trials with this learner use a searched hyperparameter."""
        if learner is None or name in self.shared or name in ("learner", "max_epochs"):
            return True
        takers = [each for each in self.learners if name in taken_by(each)]
        return not takers or learner in takers

    def encode(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """Return a point of `syne_tune()`; missing values are the middle of their domain."""
        return {
            name: domain.encode(configuration.get(name, domain.middle()))
            for name, domain in self.domains.items()
        }

    def syne_tune(self) -> dict[str, Any]:
        """Return the equivalent Syne Tune domains."""
        return {name: domain.syne_tune() for name, domain in self.domains.items()}

    def _active(self, drawn: Mapping[str, Any]) -> Configuration:
        learner = drawn.get("learner")
        return {name: each for name, each in drawn.items() if self.is_active(name, learner)}


@functools.cache
def taken_by(learner: str) -> frozenset[str]:
    """Return the hyperparameters of a learner; imports the learner, and so torch."""
    from renate_stages.learners.base import hyperparameters_of

    return frozenset(hyperparameters_of(registry.learner_class(learner)))


def _learners(learner: Any, problems: list[str]) -> list[str]:
    names: Iterable[Any] = [learner]
    if isinstance(learner, Mapping) and set(learner) == {"avalanche"}:
        joined = _of_avalanche(learner["avalanche"], problems)
        names = [] if joined is None else [joined]
    elif isinstance(learner, Mapping):
        try:
            domain = Domain.parse(learner)
            if domain.kind != "choice":
                raise ValueError(f"expected a name or {{choice: [...]}}, found {dict(learner)}")
            names = domain.values
        except ValueError as error:
            problems.append(f"learner: {error}")
            return []
    for name in names:
        if not isinstance(name, str):
            problems.append(f"learner: expected a name or {{choice: [...]}}, found {name!r}")
        elif problem := registry.problem_of(name):
            problems.append(f"learner: {problem}")
    return [name for name in names if isinstance(name, str) and registry.is_known(name)]


def _of_avalanche(content: Any, problems: list[str]) -> str | None:
    """Return the learner's name for `{plugins: [ER, LwF]}`."""
    plugins = content.get("plugins") if isinstance(content, Mapping) else None
    if not (
        isinstance(plugins, list)
        and plugins
        and all(isinstance(each, str) for each in plugins)
        and set(content) == {"plugins"}
    ):
        problems.append(f"learner.avalanche: expected {{plugins: [names]}}, found {content!r}")
        return None
    return catalog.name_of(plugins)


def _divided(
    hyperparameters: Any, learners: list[str], problems: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the searched hyperparameters, and the constants."""
    if hyperparameters == AUTO:
        return dict.fromkeys(default_spaces.of_learners(learners), AUTO), {}
    if not isinstance(hyperparameters, Mapping):
        problems.append(f"hyperparameters: expected names or auto, found {hyperparameters!r}")
        return {}, {}
    wrong = [name for name in hyperparameters if not isinstance(name, str)]
    problems += [f"hyperparameters: a name must be a string, found {name!r}" for name in wrong]
    if "learner" in hyperparameters:
        problems.append(
            "hyperparameters.learner: learner is not a hyperparameter; set the top-level key "
            "`learner` instead"
        )
    named = {name: each for name, each in hyperparameters.items() if isinstance(name, str)}
    searched = {n: each for n, each in named.items() if each == AUTO or isinstance(each, Mapping)}
    return searched, {name: each for name, each in named.items() if name not in searched}


def _problems_of_max_epochs(domains: Mapping[str, Domain], constants: Mapping) -> list[str]:
    path = "hyperparameters.max_epochs"
    if "max_epochs" in constants:
        found = constants["max_epochs"]
        return [f"{path}: set a constant in trainer.max_epochs instead, found {found!r}"]
    domain = domains.get("max_epochs")
    if domain is not None and not all(
        isinstance(each, int) and each >= 1 for each in _extremes(domain)
    ):
        return [f"{path}: expected whole numbers >= 1, found {{{domain.kind}: {domain.values}}}"]
    return []


def _extremes(domain: Domain) -> list[Any]:
    return list(domain.values) if domain.is_list else domain.grid(2)
