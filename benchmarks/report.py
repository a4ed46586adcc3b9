"""How benchmarks measure and report: medians with spread, a line for each aim, a JSON file."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import cache_from_source, find_spec
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
if sys.path[0] == str(HERE):  # last, so that `import avalanche` does not find avalanche.py
    sys.path.append(sys.path.pop(0))
PACKAGES = ("torch", "pytorch-lightning", "mlflow", "dvc", "numpy")


@dataclass
class Report:
    """Collects what one benchmark measured.

    Args:
        name: Of the benchmark; its file is `results/NAME.json`.
        settings: What was set: threads, seeds, repeats.
    """

    name: str
    settings: dict[str, Any]
    values: dict[str, list[float]] = field(default_factory=dict)
    aims: list[tuple[str, float, float, bool]] = field(default_factory=list)

    def add(self, what: str, values: Sequence[float]) -> None:
        """Record repeated measurements of one thing, and print median and spread."""
        self.values[what] = list(values)
        spread = f"{min(values):9.2f} {max(values):9.2f}" if len(values) > 1 else ""
        print(f"{what:<44}{median(values):9.2f} {spread}", flush=True)

    def at_most(self, what: str, value: float, aim: float) -> None:
        """Compare a value with an aim that it must not exceed."""
        self.aims.append((what, value, aim, value <= aim))

    def at_least(self, what: str, value: float, aim: float) -> None:
        """Compare a value with an aim that it must reach."""
        self.aims.append((what, value, aim, value >= aim))

    def finish(self) -> None:
        """Print the aims, write the JSON file, and exit 1 if an aim was missed."""
        print()
        for what, value, aim, met in self.aims:
            print(f"{'ok  ' if met else 'MISS'} {what}: {value:.3g} (aim {aim:g})")
        RESULTS.mkdir(exist_ok=True)
        content = {
            "aims": [dict(zip(("what", "value", "aim", "ok"), a, strict=True)) for a in self.aims],
            "machine": {
                "compiled": has_bytecode("torch"),
                "cores": os.cpu_count(),
                "processor": platform.machine(),
            },
            "settings": self.settings,
            "values": self.values,
            "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        }
        text = json.dumps(content, indent=1, sort_keys=True)
        (RESULTS / f"{self.name}.json").write_text(text + "\n", encoding="utf-8")
        sys.exit(not all(met for *_, met in self.aims))


def is_installed(package: str) -> bool:
    """Return whether a package is installed; a benchmark that bears its name does not count."""
    spec = find_spec(package)
    return spec is not None and spec.origin != str(HERE / f"{package}.py")


def has_bytecode(package: str) -> bool:
    """Return whether an installed package is compiled: if not, its import takes twice as long."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return False
    return Path(cache_from_source(spec.origin)).is_file()
