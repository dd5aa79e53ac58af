"""A judge compares two students' answers, in both orders."""
