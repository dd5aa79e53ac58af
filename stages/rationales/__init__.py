"""ARTE: the teacher answers drafted questions with its reasoning: sharded over questions."""
