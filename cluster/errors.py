"""Errors of commands: what happened and what to do, in lines that the command line prints as they are.

    CommandError
    ├── NoCluster          there is no Ray cluster to connect to
    ├── LocalClusterError  the local cluster did not start
    ├── PipelineExists     a pipeline of that name is already running
    ├── NoSuchPipeline     no pipeline of that name is running
    ├── NoSuchPart         a pipeline has no table, sink or dead letter of that name
    ├── NotReachable       a server that the pipeline file names cannot be used
    ├── NotRewound         a spool does not keep what was to be delivered again (exit code 1)
    ├── NotReady           a pipeline did not come to the state asked for in time (exit code 1)
    └── ReplayFailed       dead letters that were replayed failed again (exit code 1)

``ConfigError`` (``config/files.py``) is the other one that ends a command with exit code 2.
"""

from __future__ import annotations

from typing import ClassVar


class CommandError(Exception):
    """A command cannot be carried out as given."""

    exit_code: ClassVar[int] = 2


class NoCluster(CommandError):
    """There is no Ray cluster to connect to."""


class LocalClusterError(CommandError):
    """The local cluster did not start; the message says where its output is."""


class PipelineExists(CommandError):
    """A pipeline of that name is already running."""


class NoSuchPipeline(CommandError):
    """No pipeline of that name is running."""


class NoSuchPart(CommandError):
    """A pipeline has no table, sink or dead letter of that name."""


class NotReachable(CommandError):
    """Servers or tables that a pipeline file names cannot be used; one line each."""


class NotRewound(CommandError):
    """Tables could not be rewound: their spools do not keep what was asked for, or their monitors do not answer."""

    exit_code = 1


class NotReady(CommandError):
    """A pipeline did not come to the state asked for in time; nothing is lost, and asking again may do."""

    exit_code = 1


class ReplayFailed(CommandError):
    """Dead letters that were replayed did not decode again; they stay, with the new reason."""

    exit_code = 1
