"""Data modules by the name that `data.module` in params.yaml gives."""

from __future__ import annotations

import importlib

from renate_stages.data.module import RenateDataModule
from renate_stages.errors import UnknownDataModuleError

MODULES = {
    "arrays": "renate_stages.data.modules.arrays:Arrays",
    "hugging-face": "renate_stages.data.modules.hugging_face:HuggingFace",
    "images": "renate_stages.data.modules.images:Images",
    "shards": "renate_stages.data.modules.shards:Shards",
    "table": "renate_stages.data.modules.table:Table",
    "text": "renate_stages.data.modules.text:Text",
}


def module_class(name: str) -> type[RenateDataModule]:
    """Return a data module's class.

    Raises:
        UnknownDataModuleError: If there is no module of this name.
    """
    if name not in MODULES:
        raise UnknownDataModuleError(name, MODULES)
    module, attribute = MODULES[name].split(":")
    return getattr(importlib.import_module(module), attribute)
