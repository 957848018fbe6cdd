"""``gpudb.GPUdbTableMonitor``, so that moving here is a changed import line."""

from __future__ import annotations

from actors.callbacks.callback import Callback
from actors.callbacks.monitor import TableMonitor
from actors.callbacks.options import Options


class GPUdbTableMonitor:
    """The official names: ``Client``, ``Options``, ``Callback`` with what is in them."""

    Client = TableMonitor
    Options = Options
    Callback = Callback
