"""Asking a student a task's questions, with and without examples: what `answers` and `incontext` share."""
