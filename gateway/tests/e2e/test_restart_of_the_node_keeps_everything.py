"""A node that ends and starts again goes on where it was: sessions, locks, usage; the agent sees a pause."""

import signal

import pytest
from jupyter_kernel_client import JupyterKernelClient

from house import eventually, renter

ANOTHER_ADDRESS = "127.0.0.2"
NOTICE_SECONDS = 30


@pytest.mark.parametrize(
    "how", [signal.SIGTERM, signal.SIGKILL], ids=["asked", "killed"]
)
def test_sessions_locks_and_usage_are_as_before(node, agent, how):
    eventually(
        "the session is free",
        lambda: agent.session_id in node.free_sessions(),
        NOTICE_SECONDS,
    )
    access = node.request(agent.session_id)
    base = node.session_url(access.session_id)
    with JupyterKernelClient(server_url=base, token=access.token) as kernel:
        kernel.execute("answer = 6 * 7", timeout=60)
        usage_before = settled(node, access)
        heartbeats_before = agent.program.output().count("heartbeat updated")
        registrations_before = agent.registrations()

        node.stop(how)
        node.start()

        assert node.usage(access.token) == usage_before
        assert renter(access.token).get(f"{base}/api").status_code == 200
        stranger = renter(access.token, ANOTHER_ADDRESS).get(f"{base}/api")
        assert (stranger.status_code, "IP mismatch" in stranger.text) == (403, True)
        assert agent.status(node) == "LOCKED"
        again = JupyterKernelClient(
            server_url=base, token=access.token, kernel_id=kernel.id
        )
        again.start()
        try:
            reply = again.execute("print(answer)", timeout=60)
        finally:
            again.stop(shutdown_kernel=False)
        assert [one["text"] for one in reply["outputs"]] == ["42\n"]
        assert node.usage(access.token).total >= usage_before.total

        eventually(
            "heartbeats go on",
            lambda: (
                agent.program.output().count("heartbeat updated")
                > heartbeats_before + 1
            ),
            NOTICE_SECONDS,
        )
        assert agent.program.process.poll() is None
        assert agent.registrations() == registrations_before
    node.release(access.token)


def settled(node, access):
    """The usage, once it stands still: the node reports what was used a moment later."""
    last = []

    def stands_still():
        last.append(node.usage(access.token))
        return last[-1] if len(last) > 20 and len(set(last[-20:])) == 1 else None

    return eventually("usage stands still", stands_still, NOTICE_SECONDS)
