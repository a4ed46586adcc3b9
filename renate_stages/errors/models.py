"""Errors of models that are built by their name, and of the sizes that they are built for."""

from __future__ import annotations

from collections.abc import Iterable

from renate_stages.errors.base import RenateStagesError, did_you_mean


class InputSizesError(RenateStagesError):
    """The data has other columns than those a model was built for."""

    def __init__(self, model: str, what: str, built: object, found: object) -> None:
        super().__init__(
            f"{model} was built for {built} {what}, but the data has {found}.\n"
            "To fix this: give the data module the columns of the first update, or start from a new "
            "project with a model for the new columns."
        )


class LongTextsError(RenateStagesError):
    """Texts may have more tokens than a model reads, so that it would ignore the rest."""

    def __init__(self, model: str, built: int, found: int) -> None:
        super().__init__(
            f"{model} was built for texts of at most {built} tokens, but max_length of the data module "
            f"is {found}, so the model would ignore the tokens after the first {built}.\n"
            f"To fix this: set max_length in data.module of params.yaml to at most {built}; if "
            "hyperparameters of a new model set max_length, raise it there; or name TextCNN or TextGRU, "
            "which read texts of any length."
        )


class UnknownModelError(RenateStagesError):
    """`model` names a model that does not exist."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        super().__init__(
            f"unknown model '{name}'{did_you_mean(name, known)}\n"
            f"To fix this: name one of {', '.join(known)}, or set model: null and return a model from "
            "model_fn in renate_config.py."
        )


class ModelArgumentsError(RenateStagesError):
    """The arguments to build a model by its name are missing or unknown."""

    def __init__(
        self, model: str, missing: Iterable[str], unknown: Iterable[str], known: Iterable[str]
    ) -> None:
        known = list(known)
        problems = [f"{each} is missing" for each in missing]
        problems += [f"{each} is unknown{did_you_mean(each, known)}" for each in unknown]
        super().__init__(
            f"{model} cannot be built: {'; '.join(problems)}\n"
            "To fix this: set what is missing in hyperparameters of params.yaml, and give the model only "
            f"arguments that it has: {', '.join(known)}."
        )


class UnfittedModelError(RenateStagesError):
    """A model is imported without what was fitted on the data that it was trained with."""

    def __init__(self, model: object, kind: str | None) -> None:
        fitted = {"text": "a vocabulary", "images": "means and deviations of channels"}
        found = fitted.get(kind or "", "categories, scales or words")
        cures = {
            "text": "name the tokenizer.json of the model as tokenizer in data.module; ",
            "images": "set normalize in data.module to the values that the model was trained with; ",
        }
        super().__init__(
            f"the data module fits {found} on data, but there is no folder preprocessing next to "
            f"{model}, so the inputs would not be those that the model was trained with.\n"
            f"To fix this: {cures.get(kind or '', '')}give the model.safetensors of a state or of "
            "export/, which have that folder; or run `renate-stages init` without a model, and put "
            "the old data into data/incoming as update 1."
        )
