"""Compare learners over a whole sequence of updates: `renate-stages simulate`."""

from renate_stages.simulation.settings import SimulationParams
from renate_stages.simulation.side_by_side import simulate

__all__ = ["SimulationParams", "simulate"]
