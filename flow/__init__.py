"""The order: recipe → graph → what to do next; the command line; running the graph as local processes."""
