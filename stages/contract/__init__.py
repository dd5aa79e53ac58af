"""What a sequencer and a stage agree on: tasks, artifacts, fingerprints, stores, progress, exit codes.

Nothing here imports a machine-learning library: the controller's image and `montessori --help` need only
this.
"""
