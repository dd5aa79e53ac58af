"""ARTE: the teacher drafts new questions of every task, shown some of its seeds."""
