# SPDX-License-Identifier: Apache-2.0
"""The laboratory as pytest fixtures. A missing tool skips a test locally, and fails it where CI is set."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from tests.lab.accelerator import find_accelerator
from tests.lab.cluster import Cluster
from tests.lab.errors import MissingTool
from tests.lab.host import Host
from tests.lab.image import Image, make_image

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def _tools_needed() -> Iterator[None]:
    try:
        yield
    except MissingTool as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def image() -> Image:
    """What guests boot; from the cache, or made now."""
    with _tools_needed():
        return make_image()


@pytest.fixture(scope="session")
def accelerator(image: Image) -> str:
    """The domain type of guests that boot here: `kvm` or `qemu`."""
    return find_accelerator(image)


@pytest.fixture
def host(image: Image) -> Iterator[Host]:
    """A private node for QEMU guests; starting one takes 0.15 s, its first guest's definition 0.5 s."""
    with _tools_needed(), Host("alpha", image=image) as node:
        yield node


@pytest.fixture
def hosts(image: Image) -> Iterator[tuple[Host, Host]]:
    """Two private nodes, between which guests can migrate."""
    with _tools_needed(), Host("alpha", image=image) as one, Host("beta", image=image) as other:
        yield one, other


@pytest.fixture
def driver_host() -> Iterator[Host]:
    """A private libvirtd for its test driver (`Host.test_uri`): no QEMU, no kernel, events by thousands."""
    with _tools_needed(), Host("gamma") as node:
        yield node


@pytest.fixture
def cluster(image: Image) -> Iterator[Cluster]:
    """The whole way: two hosts, their node services, the master, the panel."""
    with _tools_needed(), Cluster(image=image) as whole:
        yield whole
