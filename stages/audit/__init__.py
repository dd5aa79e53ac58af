"""The audit: does first order rank this student's candidates as exact scores do, and how large is rounding?"""
