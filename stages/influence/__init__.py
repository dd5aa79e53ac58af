"""Local data influence: what one optimiser step on one candidate does to the student's reference loss.

`probe.Prober` is the entry point; the other modules are its parts, each usable and tested by itself.
Definition: Montessori-Instruct (arXiv 2410.14208), section 3.2; docs/influence.md says where this differs.
"""
