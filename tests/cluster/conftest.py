"""Fixtures of the cluster tests; see `access`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kubernetes import client

from tests.cluster.access import fresh_namespace, open_cluster


@pytest.fixture(scope="session")
def cluster() -> client.ApiClient:
    return open_cluster()


@pytest.fixture(scope="module")
def namespace(cluster: client.ApiClient, request: pytest.FixtureRequest) -> Iterator[str]:
    """One restricted namespace for the module."""
    with fresh_namespace(cluster, "montessori-test") as name:
        yield name
