"""Trains the student on instructions and responses."""
