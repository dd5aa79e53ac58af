"""ARTE: which drafted questions are used: new ones, none of the tasks' own, as many of each task as asked for."""
