"""The replay memory: how examples lie on disk, and which of them stay. Needs NumPy only."""

from renate_stages.memory.index import Shard
from renate_stages.memory.ragged import Column, Ragged
from renate_stages.memory.selection import (
    POLICIES,
    GreedyClassBalancing,
    Infinite,
    Reservoir,
    Selection,
    SelectionPolicy,
    SlidingWindow,
    make_policy,
)
from renate_stages.memory.spec import ExampleSpec, Field, Tree
from renate_stages.memory.store import ExampleStore
from renate_stages.memory.versions import evolve, link_store
from renate_stages.memory.writer import StoreWriter

__all__ = [
    "POLICIES",
    "Column",
    "ExampleSpec",
    "ExampleStore",
    "Field",
    "GreedyClassBalancing",
    "Infinite",
    "Ragged",
    "Reservoir",
    "Selection",
    "SelectionPolicy",
    "Shard",
    "SlidingWindow",
    "StoreWriter",
    "Tree",
    "evolve",
    "link_store",
    "make_policy",
]
