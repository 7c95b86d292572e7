"""GPU instances: where they fit on a card, and the least change from one layout to another.  Pure."""

from vgpuctl.model.mig.geometry import Geometry
from vgpuctl.model.mig.solver import Impossible, Layout, Standing, solve, solve_places

__all__ = ["Geometry", "Impossible", "Layout", "Standing", "solve", "solve_places"]
