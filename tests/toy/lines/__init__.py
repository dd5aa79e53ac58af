"""A sharded stage: multiplies numbers."""
