"""Command that compares learners over a sequence of updates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def simulate(
    file: Annotated[
        Path, typer.Argument(help="learners, seeds and scenario; see docs/scenarios.md")
    ] = Path("simulate.yaml"),
) -> None:
    """Run learners with several seeds over all updates of a scenario, and compare them."""
    from renate_stages.simulation import simulate as run

    if not run(file):
        raise typer.Exit(1)
