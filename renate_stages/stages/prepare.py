"""`renate-stages prepare`: turn the incoming data into stores, and measure its shift."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from renate_stages import files, lineage
from renate_stages.errors import AllForgottenError
from renate_stages.export import carried_files
from renate_stages.learners import registry
from renate_stages.memory import ExampleStore
from renate_stages.memory.forget_list import CountedForgetList, ForgetList
from renate_stages.params import Params
from renate_stages.processes import heavy_imports
from renate_stages.project import Project
from renate_stages.randomness import Generators
from renate_stages.shift.features import write_features
from renate_stages.state import State, new_data, prepared
from renate_stages.state.inputs import StageInputs
from renate_stages.user.config import UserConfig

if TYPE_CHECKING:
    from renate_stages.shift.comparison import Shift


def run(project: Project, say: Callable[[str], None] = print) -> None:
    """Read `data/incoming` through the user's data module; write `work/prepared` and its figures.

    Raises:
        RenateStagesError: If parameters, the user's functions or the data cannot be used.
    """
    stage = StageInputs.read(project, "prepare")
    lineage.check_inputs(project, "prepare")
    params = Params.load(project.params)
    registry.check_installed(params.search_space.learners)
    carried_files.check_files(project, params)  # now, not after hours of training
    forget = CountedForgetList(ForgetList.read(project.forget_list))
    splits, user = new_data.Splits(), None
    if params.update.kind == "update":
        new_data.require_files(project.incoming)
        with heavy_imports():
            user = UserConfig.of(project, "prepare")
        generators = Generators(params.seed, params.update.number)
        generators.seed_global("prepare")
        splits = new_data.read_splits(user, project.incoming, params.data, generators)

    with files.whole_directory(project.prepared) as folder:
        with new_data.reading(user):
            stores = new_data.ingest_splits(splits, folder, params.update.number, forget)
        if params.update.kind == "update" and not len(stores["train"]):
            raise AllForgottenError(forget.rows)
        prepared.write_manifest(folder, params.update.number)
        counts: dict[str, Any] = {
            split: new_data.describe(store) for split, store in stores.items()
        }
        said = [f"{split} {count['rows']} rows" for split, count in counts.items()]
        say(", ".join([*said, *([f"{forget.rows} forgotten left out"] if forget.rows else [])]))
        counts |= {"forgotten": {"rows": forget.rows}, "update": params.update.number}
        shift, names = None, splits.feature_names
        if user is not None and params.shift.enabled:
            shift = compare_with_parent(project, params, user, stores["train"], names, say)
    if shift is not None:
        counts["shift"] = shift.figures
    write_features(project.feature_shift, shift.features if shift is not None else [])
    files.write_json(project.data_metrics, counts)
    stage.check(user)


def compare_with_parent(
    project: Project,
    params: Params,
    user: UserConfig,
    new: ExampleStore,
    feature_names: Sequence[str],
    say: Callable[[str], None],
) -> Shift | None:
    """Compare new training rows with the parent's; None where it has no examples."""
    parent = State.open(project.parent)
    if not parent.has_examples:
        return None
    from renate_stages.shift.comparison import compare

    found = compare(user, params, parent, new, feature_names)
    if found is None:
        return None
    for what, reason in found.figures.get("skipped", {}).items():
        say(f"{what} is left out: {reason}")
    tests = [f"{name} p {each['p_value']:.2g}" for name, each in found.figures["tests"].items()]
    if tests:
        seen = "shift" if found.figures["alarms"] else "no shift"
        say(f"{seen} against {parent.label}: {', '.join(tests)}")
    of = found.figures.get("features", {})
    if of.get("shifted"):
        say(f"{of['shifted']} of {of['compared']} features, most of all {of['most_shifted']}")
    return found
