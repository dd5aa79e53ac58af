"""Bundled recipes, one YAML a run."""
