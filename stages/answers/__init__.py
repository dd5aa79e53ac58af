"""ARTE: one model's answers to the tasks' questions after 0 to k examples: sharded over questions."""
