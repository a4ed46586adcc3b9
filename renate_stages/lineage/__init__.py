"""The lineage of updates: pointers to parent and champion, tags, `next`, `verify`.

Only this package reads `dvc.lock` and writes `.dvc` files. A DVC pipeline has no cycles, but an
update needs the state that its parent wrote. `parent.dvc` connects the two: its content hash equals
the hash of `state` in the parent's `dvc.lock`.
"""

from renate_stages.lineage.anchor import anchored, check, check_inputs, folders_to_verify
from renate_stages.lineage.chain import verify
from renate_stages.lineage.champion import (
    ChampionPointer,
    crown,
    export_entry,
    judged_champion,
    since,
    verdict_hash,
)
from renate_stages.lineage.checkout import drop_index, fetch
from renate_stages.lineage.commands import dvc, git, has_remote, track
from renate_stages.lineage.conflict import check_conflict, take_side
from renate_stages.lineage.data_read import is_prepared, is_trained
from renate_stages.lineage.definition import StageDefinition
from renate_stages.lineage.git_locks import clear_git_locks
from renate_stages.lineage.intent import Repeatable, read_intent
from renate_stages.lineage.opening import (
    open_forget,
    open_from,
    open_next,
    uncommitted,
    unfinished,
    untracked_data,
)
from renate_stages.lineage.project_status import status
from renate_stages.lineage.records import (
    at_tag,
    committed_at,
    is_fresh,
    lock_text,
    older_versions,
    pointer_hash,
    state_hash,
    tags,
)
from renate_stages.lineage.repair import repair
from renate_stages.lineage.settings import settle_remote
from renate_stages.lineage.transaction import Recovered, check_git, recover

__all__ = [
    "ChampionPointer",
    "Recovered",
    "Repeatable",
    "StageDefinition",
    "anchored",
    "at_tag",
    "check",
    "check_conflict",
    "check_git",
    "check_inputs",
    "clear_git_locks",
    "committed_at",
    "crown",
    "drop_index",
    "dvc",
    "export_entry",
    "fetch",
    "folders_to_verify",
    "git",
    "has_remote",
    "is_fresh",
    "is_prepared",
    "is_trained",
    "judged_champion",
    "lock_text",
    "older_versions",
    "open_forget",
    "open_from",
    "open_next",
    "pointer_hash",
    "read_intent",
    "recover",
    "repair",
    "settle_remote",
    "since",
    "state_hash",
    "status",
    "tags",
    "take_side",
    "track",
    "uncommitted",
    "unfinished",
    "untracked_data",
    "verdict_hash",
    "verify",
]
