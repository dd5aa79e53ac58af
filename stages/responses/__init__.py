"""The teacher answers the instructions that were kept: sharded over instructions."""
