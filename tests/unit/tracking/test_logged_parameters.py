"""Parameters logged to MLflow: all that results depend on, but no possible secrets."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from pydantic import BaseModel

from renate_stages.params import Params, TuningParams
from renate_stages.tracking.update_run import logged_parameters

SECRET = "S3CRET"
UNRESTRICTED = {"learner", "model", "hyperparameters", "evaluation.reference", "shift.thresholds"}
"""Logged keys of unrestricted type: names, hyperparameters and reference metrics."""


def leaves(values: dict[str, Any], begin: str = "") -> dict[str, Any]:
    found = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            found |= leaves(value, f"{begin}{name}.")
        else:
            found[f"{begin}{name}"] = value
    return found


def test_params_blocks_that_may_contain_secrets_are_not_logged():
    content = {
        "data": {
            "arguments": {"database": f"postgresql://me:{SECRET}@host", "token": SECRET},
            "scenario": {"name": "domain-incremental", "groupings": [[SECRET]]},
        },
        "remote": {
            "url": f"s3://{SECRET}/folder",
            "sagemaker": {"environment": {"API_KEY": SECRET}, "tags": {"owner": SECRET}},
        },
        "tracking": {"experiment": SECRET},
        "export": {"promote": {}},
        "hyperparameters": {"learning_rate": 0.1},
    }
    logged = logged_parameters(Params.parse(content))
    assert SECRET not in str(logged)
    assert set(logged) == {
        *("data", "evaluation", "example", "hyperparameters", "learner", "model", "retention"),
        *("seed", "shift", "should_update", "task", "trainer", "tuning", "update"),
    }
    assert logged["data"] == {
        "validation_fraction": 0.1,
        "test_fraction": 0.2,
        "split": "random",
        "split_by": None,
        "scenario": {"name": "domain-incremental", "chunk_id": None},
    }
    assert logged["hyperparameters"] == {"learning_rate": 0.1}
    assert "scheduler_arguments" not in logged["tuning"] and "scheduler" in logged["tuning"]


def test_logged_params_have_restricted_types_except_known_keys():
    """Fail for each new unrestricted key in a logged block, to force a decision about it."""
    logged = leaves(logged_parameters(Params()))
    for path in logged:
        model: Any = Params
        for part in path.split("."):
            if not (isinstance(model, type) and issubclass(model, BaseModel)):
                break
            model = model.model_fields[part].annotation
        assert not is_unrestricted(model) or path in UNRESTRICTED, f"{path} may hold a secret"
    assert is_unrestricted(TuningParams.model_fields["scheduler_arguments"].annotation)


def is_unrestricted(annotation: Any) -> bool:
    inner = get_args(annotation)
    return (
        annotation in (Any, dict)
        or get_origin(annotation) is dict
        or any(map(is_unrestricted, inner))
    )


def test_names_that_would_become_the_same_in_mlflow_stay_distinct():
    from renate_stages.tracking.runs import _flat

    slices = {"range": {"<5": 0.1, ">5": 0.2, "=5": 0.3, "7": 0.4}}
    found = dict(_flat({"slices": slices}))
    assert sorted(found.values()) == [0.1, 0.2, 0.3, 0.4]
    assert found["slices.range.7"] == 0.4 and all(n.startswith("slices.range.") for n in found)
    alone = dict(_flat({"slices": {"range": {"<5": 0.1}}}))
    assert alone == {"slices.range._5": 0.1}
