"""ARTE's signal: how well a student answers the preference set with a candidate as its one example."""
