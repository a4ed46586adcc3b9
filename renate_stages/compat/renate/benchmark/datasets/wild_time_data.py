"""`renate.benchmark.datasets.wild_time_data`: the Wild-Time benchmark, which has no counterpart."""

from renate_stages.compat.renate.missing import refuse

_OWN = "write a RenateDataModule that reads the files of the package wildtime"

__getattr__ = refuse(__name__, {"WildTimeDataModule": _OWN})
