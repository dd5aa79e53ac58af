"""The cluster: a run as Kubernetes Jobs, and the controller that sequences them. Imports flow, never an ML library."""
