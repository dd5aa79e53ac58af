"""The work: one package a stage, each the entry point of one container (`python -m stages TASK_URI`)."""
