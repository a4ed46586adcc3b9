"""The side process of `renate-stages publish`: a writer that also uses the model registry.

Like `writer.py` it is run by file name, and it accepts the writer's commands too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

PACKAGE_ROOT = Path(__file__).parents[2]
if __name__ == "__main__":  # import the same package as the process that started this one
    sys.path.insert(0, str(PACKAGE_ROOT))

from renate_stages._version import __version__
from renate_stages.tracking import writer
from renate_stages.tracking.writer import Tags, Writer

SERVED_PROGRAM = Path(__file__).with_name("served_program.py")
SERVED_ROWS = Path(__file__).with_name("served_rows.py")
STATE_TAG = "renate.state"
EXPORTED_TAG = "renate.exported"
ROWS = 2  # rows of an input example
RAW_TYPES = {"image": "binary", "text": "string"}
"""Types of columns of raw rows; others get any type, because MLflow would refuse whole numbers in a
column of fractions, and numbers in a column of categories, which `predict` takes. So do columns whose
values may be missing, because MLflow would refuse a column of missing values only."""
EXAMPLES = {"boolean": False, "category": "", "date": "2000-01-01", "number": 0.0, "text": ""}


class Registrar(Writer):
    """Finds or creates the run of a state and its version of a registered model."""

    untouched = False  # whether the existing run was complete, so that nothing is added
    ended: int | None = None  # end time of the existing run, which it keeps

    @property
    def verbs(self) -> dict[str, Callable[..., None]]:
        """The commands: those of the writer and those for the model registry."""
        own = {
            "publish": self.publish,
            "version": self.version,
            "alias": self.alias,
            "point": self.point,
        }
        return {**super().verbs, **own}

    def publish(
        self,
        *,
        state: str,
        store: dict[str, Any],
        experiment: str,
        experiment_tags: Tags,
        name: str,
        key: str,
        tags: Tags,
    ) -> None:
        """Open the run that made a state, or a new one; reply with the missing parts."""
        with self._connected(store):
            place = store["artifact_location"], experiment_tags
            experiment_id = self._experiment_id(experiment, *place, create=True)
            assert experiment_id is not None
            self.uri = store["uri"]
        attempts = self._attempts(experiment_id, key)
        made = [
            run
            for run in attempts
            if run.data.tags.get(STATE_TAG) == state
            and run.data.tags.get("renate.complete") == "true"
            and run.info.lifecycle_stage == "active"
        ]
        lacking = ["figures", "results"]
        if made:
            latest = max(made, key=lambda run: int(run.data.tags["renate.attempt"]))
            self.run_id, self.experiment_id = latest.info.run_id, experiment_id
            self.ended = latest.info.end_time
            self.untouched = latest.data.tags.get(EXPORTED_TAG) == "true"
            lacking = [] if self.untouched else ["results"]
        else:
            own = {"renate.key": key, "renate.attempt": str(len(attempts) + 1), STATE_TAG: state}
            self._start(experiment_id, name, {**tags, **own}, attempts)
        self.reply({"lacking": lacking, "run_id": self.run_id})

    def version(
        self,
        *,
        model: str,
        state: str,
        folder: str,
        tags: Tags,
        description: str,
        about: str,
        columns: list[dict[str, Any]],
        packages: list[str],
    ) -> None:
        """Register the exported model as a version, once per state; reply with its number.

        With columns of raw rows, the version is the whole folder; otherwise it is the program.
        """
        import mlflow

        existing = self._version_of(model, state)
        if existing is not None:
            self.reply({"version": existing, "new": False})
            return
        mlflow.set_tracking_uri(self.uri)
        content = _rows(folder, columns, packages) if columns else _program(Path(folder))
        with mlflow.start_run(run_id=self._run(), log_system_metrics=False):
            logged = mlflow.pyfunc.log_model(
                name="model", tags={STATE_TAG: state, **tags}, **content
            )
        self._make_model(model, about)
        made = mlflow.register_model(logged.model_uri, model, tags={STATE_TAG: state, **tags})
        self.client.update_model_version(model, made.version, description)
        self.reply({"version": str(made.version), "new": True})

    def alias(self, *, model: str, alias: str, state: str) -> None:
        """Move an alias to the version of a state."""
        version = self._version_of(model, state)
        if version is not None:
            self.client.set_registered_model_alias(model, alias, version)

    def point(self, *, store: dict[str, Any], model: str, alias: str, state: str | None) -> None:
        """Connect; move an alias to the version of a state, or remove it; reply with the version."""
        from mlflow.exceptions import MlflowException

        with self._connected(store):
            pass
        if state is not None:
            self.alias(model=model, alias=alias, state=state)
            self.reply({"pointed": self._version_of(model, state)})
            return
        try:
            self.client.delete_registered_model_alias(model, alias)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # the model was never registered
                raise
        self.reply({"pointed": None})

    def close(self, status: str, tags: Tags) -> None:
        """End the run; an existing run keeps the status FINISHED and its end time."""
        if self.ended is None:
            super().close(status, tags)
            return
        if not self.untouched and status == "FINISHED":
            self.tags(tags)
        self.client.set_terminated(self._run(), "FINISHED", self.ended)
        self.reply({"closed": True})

    def _version_of(self, model: str, state: str) -> str | None:
        quoted = model.replace("'", "\\'")
        where = f"name = '{quoted}' and tags.`{STATE_TAG}` = '{state}'"
        versions = self.client.search_model_versions(where)
        return max((str(version.version) for version in versions), key=int, default=None)

    def _make_model(self, name: str, description: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(name, description=description)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def _program(exported: Path) -> dict[str, Any]:
    """Return what to log for an exported program, which needs no code of the user's."""
    described = json.loads((exported / "program.json").read_text("utf-8"))
    return {
        "python_model": str(SERVED_PROGRAM),
        "artifacts": {
            "program": str(exported / described["program"]),
            "description": str(exported / "program.json"),
            "labels": str(exported / "labels.json"),
            "card": str(exported / "MODEL_CARD.md"),
        },
        "signature": _signature(described),
        "input_example": _example(described["inputs"]),
        "pip_requirements": _requirements("mlflow", "numpy", "torch"),
    }


def _rows(folder: str, columns: list[dict[str, Any]], packages: list[str]) -> dict[str, Any]:
    """Return what to log for a model that takes raw rows.

    The example of inputs has no value of the data, which would stay there after its deletion.
    """
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import Schema

    example = {c["name"]: [EXAMPLES[c["kind"]]] for c in columns if c["kind"] in EXAMPLES}
    return {
        "python_model": str(SERVED_ROWS),
        "artifacts": {"export": folder},
        "signature": ModelSignature(Schema(_raw_specs(columns))),
        "input_example": pd.DataFrame(example) if example else None,
        "pip_requirements": [
            f"renate-stages=={__version__}",
            *_requirements("mlflow", "numpy", "pandas", "pyarrow", "torch", *packages),
        ],
    }


def _raw_specs(columns: list[dict[str, Any]]) -> list[Any]:
    """Return the columns of a signature for raw rows.

    MLflow drops columns that the signature does not have. So the other names of a column are in it,
    and each of its names may be missing; the model refuses rows that have none of them, or two.
    """
    from mlflow.types import ColSpec
    from mlflow.types.schema import AnyType

    specs = []
    for each in columns:
        kind = None if each["optional"] else RAW_TYPES.get(each["kind"])
        names = (each["name"], *each["other_names"])
        specs += [ColSpec(kind or AnyType(), name, required=len(names) == 1) for name in names]
    return specs


def _signature(described: dict[str, Any]) -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def schema(tensors: list[dict[str, Any]]) -> Schema:
        return Schema(
            [
                TensorSpec(
                    np.dtype(each["dtype"]),
                    [-1 if size is None else size for size in each["shape"]],
                    each["name"],
                )
                for each in tensors
            ]
        )

    return ModelSignature(schema(described["inputs"]), schema(described["outputs"]))


def _example(inputs: list[dict[str, Any]]) -> Any:
    """Return a batch of zeros; MLflow would keep a row of real data after it is forgotten."""
    import numpy as np

    arrays = {
        each["name"]: np.zeros(
            [ROWS if size is None else size for size in each["shape"]], each["dtype"]
        )
        for each in inputs
    }
    return arrays.get(None, arrays)


def _requirements(*names: str) -> list[str]:
    return [f"{name}=={installed(name).partition('+')[0]}" for name in names]


if __name__ == "__main__":
    writer.main(Registrar)
