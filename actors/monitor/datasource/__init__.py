"""Data sources of users' own, made of the blocks of ``protocols/panoply``, as sources of a table."""
