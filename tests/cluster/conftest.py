"""Fixtures of the cluster tests; see `access` and `release`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kubernetes import client

from tests.cluster.access import fresh_namespace, open_cluster
from tests.cluster.loop import Loop
from tests.cluster.machine import check_programs, controller_image, image_under_test
from tests.cluster.release import Release


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The loop's tests come last: it takes many minutes, and `release` begins it before all others."""
    items.sort(key=_of_the_loop)


def _of_the_loop(item: pytest.Item) -> bool:
    return item.path == Path(__file__).with_name("test_loop.py")


@pytest.fixture(scope="session")
def cluster() -> client.ApiClient:
    return open_cluster()


@pytest.fixture(scope="module")
def namespace(cluster: client.ApiClient, request: pytest.FixtureRequest) -> Iterator[str]:
    """One restricted namespace for the module."""
    with fresh_namespace(cluster, "montessori-test") as name:
        yield name


@pytest.fixture(scope="session")
def release(cluster: client.ApiClient, request: pytest.FixtureRequest) -> Iterator[Release]:
    """The chart in a namespace of its own, with MinIO and a controller that runs real and toy graphs.

    Begins the loop, if that is asked for as well.
    """
    check_programs()
    if any(map(_of_the_loop, request.session.items)):
        request.getfixturevalue("loop")
    found = Release(f"montessori-test-{uuid.uuid4().hex[:8]}", image_under_test())
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="session")
def loop(cluster: client.ApiClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """The loop with real stages under the controller's own image, begun: it goes on beside the other tests."""
    check_programs()
    found = Release(f"montessori-loop-{uuid.uuid4().hex[:8]}", image_under_test(), controller_image())
    try:
        with closing(Loop(found, tmp_path_factory.mktemp("loop"))) as loop:
            yield loop
    finally:
        found.close()
