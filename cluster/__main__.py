"""``python -m cluster``: the ``tablecast`` command, for processes that start others of themselves."""

from cluster.cli import main

main(prog_name="tablecast")
