"""ARTE's measure: exact match of the students' answers, by task and category, with intervals."""
