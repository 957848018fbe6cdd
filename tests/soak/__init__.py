"""Long forms of tests, for ``scripts/soak``; the suite runs the same code for seconds."""
