"""The ``tablecast`` command: ``main.py``, and a module for most verbs."""
