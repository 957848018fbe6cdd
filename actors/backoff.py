"""How long actors wait before they try again: as the clients do."""

from protocols.backoff import Backoff

__all__ = ["Backoff"]
