"""An unsharded stage: a folder, a table and figures."""
