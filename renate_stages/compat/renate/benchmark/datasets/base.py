"""`renate.benchmark.datasets.base`: data in several parts, such as time slices."""

from __future__ import annotations

from pathlib import Path

from renate_stages.compat.renate.data.data_module import RenateDataModule


class DataIncrementalDataModule(RenateDataModule):
    """The base class of data modules that load one of several parts, named by `data_id`.

    Args:
        data_path: Folder with the data.
        data_id: The part that `setup` loads.
        src_bucket: As in `RenateDataModule`.
        src_object_name: As in `RenateDataModule`.
        val_size: As in `RenateDataModule`.
        seed: As in `RenateDataModule`.
    """

    def __init__(
        self,
        data_path: str | Path,
        data_id: int | str,
        src_bucket: str | None = None,
        src_object_name: str | None = None,
        val_size: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(data_path, src_bucket, src_object_name, val_size, seed)
        self.data_id = data_id
