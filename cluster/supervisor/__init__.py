"""The supervisor of a pipeline: keeps its actors alive, places them, and sizes the pool of decoders."""
