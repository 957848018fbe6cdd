"""``python -m cluster``: the ``tablecast`` command, for processes that start others of themselves."""

from cluster.cli.main import main

main(prog_name="tablecast")
