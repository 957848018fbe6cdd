"""V3IO under the names of the official ``v3io`` package, with its faults mended; ``docs/v3io.md`` says which.

``calls.py`` turns arguments into requests, ``dataplane.py`` sends them, ``response.py`` and ``outputs.py`` hold the
replies. The calls of ``objects.py``, ``kv.py``, ``stream.py`` and ``flat.py`` are written once for the blocking client
(``client.py``), its batches (``batch.py``) and the asyncio client (``aio.py``).
"""
