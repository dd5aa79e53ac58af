"""The held-out reference loss of each student, and how sure the differences between them are."""
