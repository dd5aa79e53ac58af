"""ARTE: which validation questions tell good answerers from bad ones, by item response theory."""
