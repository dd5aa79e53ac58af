"""The control of every claim: scores that know nothing of the candidates."""
