"""A student answers questions, turn by turn: what judges then look at."""
