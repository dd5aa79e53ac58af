"""The teacher writes new instructions after seeing some: sharded over prompts."""
