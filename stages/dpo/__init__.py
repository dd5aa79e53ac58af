"""Trains the teacher on preference pairs (DPO), so that it writes what helps the student."""
