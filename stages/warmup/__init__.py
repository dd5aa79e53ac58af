"""Trains the student on few rows, for weights and optimiser state that influence is measured from."""
