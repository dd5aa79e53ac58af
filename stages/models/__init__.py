"""Where a model comes from: the built-in one, a folder or a hub id, whole or with layers left out."""
