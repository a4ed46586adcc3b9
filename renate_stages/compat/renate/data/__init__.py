"""`renate.data`: data modules and datasets."""

from renate_stages.compat.renate.data.data_module import CSVDataModule, RenateDataModule
from renate_stages.compat.renate.data.datasets import ImageDataset

__all__ = ["CSVDataModule", "ImageDataset", "RenateDataModule"]
