"""One page that says what a run did, what came of it, how sure that is, and what it cost."""
