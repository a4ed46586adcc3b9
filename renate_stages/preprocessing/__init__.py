"""What is fitted on data, kept in the state as JSON: `Preprocessing`."""

from renate_stages.preprocessing.base import (
    FOLDER,
    Preprocessing,
    RawColumn,
    link_preprocessing,
)
from renate_stages.preprocessing.registry import read_preprocessing

__all__ = ["FOLDER", "Preprocessing", "RawColumn", "link_preprocessing", "read_preprocessing"]
