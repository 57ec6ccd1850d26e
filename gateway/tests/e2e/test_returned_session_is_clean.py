"""What the last renter left is gone before the next one comes."""

import time

import pytest

from house import CONTAINER_SECONDS, eventually, renter

# A node says that a renter is there every five seconds.
ABSENT_SECONDS = 12


@pytest.fixture(scope="module")
def node_settings():
    return {
        "control.renter_absent_seconds": ABSENT_SECONDS,
        "control.sweep_interval_ms": 100,
    }


def release(node, access):
    node.release(access.token)


def stay_away(node, access):
    """Nothing at all: the sweeper finds out."""


@pytest.mark.parametrize("how_it_ends", [release, stay_away])
def test_files_kernels_and_jupyters_token_of_the_last_renter_are_gone(
    node, agent, how_it_ends
):
    eventually(
        "the session is free",
        lambda: agent.session_id in node.free_sessions(),
        CONTAINER_SECONDS,
    )
    access = node.request(agent.session_id)
    base = node.session_url(access.session_id)
    last = renter(access.token)
    file = {"type": "file", "format": "text", "content": "mine"}
    assert last.put(f"{base}/api/contents/mine.txt", json=file).status_code == 201
    assert last.post(f"{base}/api/kernels", json={"name": "python3"}).status_code == 201
    assert agent.status(node) == "LOCKED"
    token_before = agent.jupyter_token()

    how_it_ends(node, access)

    assert "RECYCLING" in statuses_until_ready(node, agent)
    assert last.get(f"{base}/api/contents/").status_code == 403
    new_access = node.request(agent.session_id)
    assert new_access.session_id == access.session_id
    following = renter(new_access.token)
    assert following.get(f"{base}/api/contents/").json()["content"] == []
    assert following.get(f"{base}/api/kernels").json() == []
    assert agent.jupyter_token() != token_before
    release(node, new_access)


def statuses_until_ready(node, agent):
    seen = []
    deadline = time.monotonic() + ABSENT_SECONDS + CONTAINER_SECONDS
    while (status := agent.status(node)) != "READY":
        seen.append(status)
        assert time.monotonic() < deadline, (
            f"not ready again; the last states: {seen[-5:]}"
        )
    return seen
