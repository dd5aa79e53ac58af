"""Aggregation: from a score a response to a score an instruction, and how far that can be relied on."""
