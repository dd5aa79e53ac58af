"""Cuts the training rows of compared branches to one budget: rows, tokens or device seconds."""
