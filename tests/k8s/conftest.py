"""A real S3 server, with keys that must appear nowhere."""

from tests.contract.conftest import seaweedfs_server

__all__ = ["seaweedfs_server"]
