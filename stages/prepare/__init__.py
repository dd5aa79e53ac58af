"""Seeds and reference rows from wherever a recipe names them: cleaned, each once, and split once."""
