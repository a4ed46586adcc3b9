"""Replay memory: stores of examples on disk, and selection policies. Needs only NumPy."""

from renate_stages.memory.balancing import ClassBalancedReservoir, GreedyClassBalancing
from renate_stages.memory.herding import Herding
from renate_stages.memory.index import Shard
from renate_stages.memory.policies import POLICIES, make_policy, rows_of_size, size_in_bytes
from renate_stages.memory.ragged import Column, Ragged
from renate_stages.memory.selection import (
    Infinite,
    Placement,
    Reservoir,
    Selection,
    SelectionPolicy,
    SlidingWindow,
)
from renate_stages.memory.spec import ExampleSpec, Field, Tree
from renate_stages.memory.store import ExampleStore
from renate_stages.memory.versions import evolve, link_store
from renate_stages.memory.writer import StoreWriter

__all__ = [
    "POLICIES",
    "ClassBalancedReservoir",
    "Column",
    "ExampleSpec",
    "ExampleStore",
    "Field",
    "GreedyClassBalancing",
    "Herding",
    "Infinite",
    "Placement",
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
    "rows_of_size",
    "size_in_bytes",
]
