"""A real S3 server for runs."""

from tests.contract.conftest import seaweedfs_server

__all__ = ["seaweedfs_server"]
