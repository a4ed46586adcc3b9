"""The data of an update: the user's data module, datasets over stores, and loaders."""

from renate_stages.data.batch import Batch, StepBatch
from renate_stages.data.columns import ColumnDataset
from renate_stages.data.ingest import ingest
from renate_stages.data.module import RenateDataModule
from renate_stages.data.rejected import Rejected
from renate_stages.data.stored import Batched, ConcatStored, StoredDataset
from renate_stages.data.trees import concatenate

__all__ = [
    "Batch",
    "Batched",
    "ColumnDataset",
    "ConcatStored",
    "Rejected",
    "RenateDataModule",
    "StepBatch",
    "StoredDataset",
    "concatenate",
    "ingest",
]
