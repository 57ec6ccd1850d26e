"""A session is made anew when its renter leaves, not when the agent's next heartbeat is due."""

import secrets

import pytest

from house import CONTAINER_SECONDS, Agent, eventually, renter

# More than the container takes: whoever waited for it would be seen to.
HEARTBEAT_SECONDS = 60


@pytest.fixture
def slow_agent(tmp_path, node, image):
    agent = Agent(tmp_path, node.control_url, f"runit-e2e-{secrets.token_hex(4)}")
    agent.settings["agent.heartbeat_seconds"] = HEARTBEAT_SECONDS
    try:
        yield agent.start()
    finally:
        agent.stop()


def heartbeats(agent):
    return agent.program.output().count("[agent] heartbeat updated")


def test_the_workspace_is_replaced_before_the_next_heartbeat(node, slow_agent):
    access = node.request(slow_agent.session_id)
    token_before = slow_agent.jupyter_token()
    base = node.session_url(access.session_id)
    assert renter(access.token).get(f"{base}/api/status").status_code == 200
    eventually("locked", lambda: slow_agent.status(node) == "LOCKED", CONTAINER_SECONDS)
    before = heartbeats(slow_agent)

    node.release(access.token)

    eventually(
        "the workspace is replaced",
        lambda: "[agent] replacing the workspace" in slow_agent.program.output(),
        HEARTBEAT_SECONDS,
    )
    assert heartbeats(slow_agent) == before
    eventually(
        "ready again", lambda: slow_agent.status(node) == "READY", CONTAINER_SECONDS
    )
    assert slow_agent.jupyter_token() != token_before
