"""Pipelines on a cluster. ``supervisor`` and ``watch`` are about a running one, ``cli`` is the command line.

The modules beside these rooms are what commands do, without a terminal: ``cli/verify.py`` prints what ``verify.py``
finds out, and so on.
"""
