"""Renate's names: in an import, replace `renate.` by `renate_stages.compat.renate.`.

    from renate.models import RenateModule                           # Renate 0.5
    from renate_stages.compat.renate.models import RenateModule      # here

The names are those that a `renate_config.py` and the program that starts its updates use. What
differs is listed in docs/migration.md.
"""
