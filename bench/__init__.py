"""Measurements that are run by hand; each prints a table and ends with one line of JSON."""
