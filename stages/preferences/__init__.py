"""ARTE's preference pairs: questions of a task against each other, and rationales of a question."""
