"""A judge grades each turn of a student's answers from 1 to 10."""
