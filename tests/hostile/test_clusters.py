"""Ray clusters that are none, or let nobody in: one line at once, and not Ray's log of most of a minute."""

import os
import socket
import time
from types import SimpleNamespace

import pytest

from gantailor.pipeline.search.ray import check_ray, connect
from gantailor.supernet.errors import ConfigError

pytest.importorskip("ray")


@pytest.fixture
def listening(monkeypatch):
    """An address at which something listens; a start of Ray itself fails the test."""
    import ray

    monkeypatch.setattr(ray, "init", lambda **given: pytest.fail("Ray was asked"))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.create_server(("", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_cluster_with_a_token(listening, monkeypatch, capfd):
    from ray import _raylet
    from ray.exceptions import AuthenticationError

    def refused(address):
        os.write(2, b"Ray's own log\n")
        raise AuthenticationError("InvalidAuthToken")

    monkeypatch.setattr(_raylet, "GcsClient", refused)
    with pytest.raises(ConfigError, match=r"asks for a token.* set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN"):
        connect(listening)
    assert capfd.readouterr().err == ""


def test_nothing_listens(listening):
    with socket.create_server(("127.0.0.1", 0)) as other:
        free = f"127.0.0.1:{other.getsockname()[1]}"
    started = time.monotonic()
    with pytest.raises(ConfigError, match=rf"no Ray cluster at '{free}': .*refused; start one with ray start --head"):
        connect(free)
    assert time.monotonic() - started < 10


def test_none_is_known_on_this_machine(listening, monkeypatch):
    """``auto`` asks the environment, then looks for what runs here. A search is told before its training."""
    from ray._private import services

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(services, "find_gcs_addresses", set)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda folder: None)
    with pytest.raises(ConfigError, match=r"no Ray cluster at 'auto': .*; start one with ray start --head"):
        connect("auto")
    settings = SimpleNamespace(ray_address="auto", ray_gpus=0.0)
    with pytest.raises(ConfigError, match="no Ray cluster at 'auto'"):
        check_ray(settings, "auto")
    check_ray(settings, "auto", soon=False)
