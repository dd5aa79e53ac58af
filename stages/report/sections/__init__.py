"""The parts of the page, each out of the nodes that it is about; a run without them gets a sentence instead."""
