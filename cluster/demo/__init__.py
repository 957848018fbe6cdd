"""``tablecast demo``: the main job on real data, with the embedded servers, ending in a proof from the rows."""

from cluster.demo.run import run_demo

__all__ = ["run_demo"]
