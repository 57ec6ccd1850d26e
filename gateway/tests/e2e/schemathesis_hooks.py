"""What schemathesis asks with, and what it writes down.

In four of five cases of an operation there is a session, and the secrets of who has it; the fifth is as it was generated.
Each case has a session of its own, so that what it ends is missed by no other.
"""

import json
import os
from collections import Counter
from pathlib import Path

import schemathesis

from house import HTTP_SECONDS, renter

ASKED = json.loads(os.environ["ASKED"])
STATES = [None, "rented", "free", "over", "rented elsewhere"]
PROVIDER = "e2e"
USED = {"millicores": 250, "memoryBytes": 3_900_000_000, "processes": 20}
# From our own page, and from a foreign one; the next case is of another session, and so needs another connection.
FIELDS = [
    {"Connection": "close", "Origin": ASKED["url"]},
    {"Connection": "close", "Sec-Fetch-Site": "cross-site", "Accept": "text/html"},
]
cases = Counter()


@schemathesis.hook
def before_call(context, case, kwargs):
    turn, place = divmod(cases[case.operation.label], len(STATES))
    cases[case.operation.label] += 1
    state = STATES[place]
    described = case.operation.definition.raw
    schemes = {name for one in described.get("security", []) for name in one}
    if "operator" in schemes:
        # Never one that opens nothing: after 20 of these in a minute none is looked at.
        keys = OPERATORS if state else [None, READING_KEY, *OPERATORS]
        authorize(case, keys[turn % len(keys)])
    if state:
        case.headers.update(FIELDS[turn % 2])
        if schemes - {"operator"} or described.keys() & {"parameters", "requestBody"}:
            ask_about(session(state), case, schemes, turn)


@schemathesis.hook
def after_call(context, case, response):
    if case.method == case.operation.method.upper():
        with Path(ASKED["answers"]).open("a") as answers:
            answers.write(f"{response.status_code} {case.operation.label}\n")


@schemathesis.check
def own_refusals_are_named(context, response, case):
    """Where `default` is what Jupyter answers: this one answers 200, so that all else is the gateway's own."""
    named = case.operation.definition.raw["responses"]
    if "default" in named and response.status_code != 200:
        assert str(response.status_code) in named, response.status_code


def told(method, url, bearer=None, body=None):
    answer = renter(bearer).request(method, url, json=body, timeout=HTTP_SECONDS)
    assert answer.ok, answer.text
    return answer.json()


def make_key(**holder):
    keys = f"{ASKED['admin_url']}/admin/v1/keys"
    return told("POST", keys, ASKED["operator_key"], holder)


OPERATORS = [ASKED["operator_key"], make_key(name="watch", role="operate")["key"]]
READING_KEY = make_key(name="guest", role="read")["key"]
PROVIDER_KEY = make_key(providerId=PROVIDER)["key"]


def session(state):
    """A new one, with what its provider and its renter were told."""
    control = ASKED["control_url"]
    offer = {"providerId": PROVIDER, "publicUrl": ASKED["public_url"], "token": "one"}
    owned = told("POST", f"{control}/provider/session", body=offer)
    wanted = {"sessionId": owned["sessionId"]}
    report = {**wanted, "report": {**USED, "limits": USED}}
    told("POST", f"{control}/provider/heartbeat", owned["providerSecret"], report)
    given = told("POST", f"{control}/renter/request", body=wanted)
    if state == "rented elsewhere":
        open_page(given["url"], renter(address="127.0.0.2"))
    elif state != "free":
        open_page(f"{given['serverUrl']}lab", renter(given["accessToken"]))
    if state == "over":
        told("POST", f"{control}/renter/release", given["accessToken"])
    return {**owned, **given}


def open_page(url, client):
    answer = client.get(url, timeout=HTTP_SECONDS)
    assert answer.ok, answer.text


def ask_about(there, case, schemes, turn):
    """Puts what is known of a session where the operation asks for it."""
    session_id, token = there["sessionId"], there["accessToken"]
    if "provider" in schemes:
        authorize(case, there["providerSecret"])
    if schemes & {"renter", "bearer"}:
        authorize(case, token)
    fill(case.headers, {"Runit-Provider-Key": PROVIDER_KEY})
    ids = {"id": session_id, "sessionId": session_id, "token": token}
    if "/keys/" in case.path:
        ids["id"] = make_key(providerId=PROVIDER)["keyId"]
    places = {"file": "format.js", "name": "format.js", "path": "lab"}
    fill(case.path_parameters, {**ids, **places})
    filters = {"session": session_id, "provider": PROVIDER, "address": "127.0.0.1"}
    kinds = {"kind": "SESSION_LOCKED,SESSION_RELEASED"}
    fill(case.query, {**filters, **kinds, "token": token})
    if case.operation.label == "POST /admin/v1/keys":
        # Either the one or the other, which the document does not tell.
        holders = [{"providerId": PROVIDER}, {"name": "night shift", "role": "read"}]
        case.body = holders[turn % 2]
    elif isinstance(case.body, dict):
        offer = {"providerId": PROVIDER, "publicUrl": ASKED["public_url"], "token": "two"}
        fill(case.body, {**there, **offer})


def fill(values, known):
    """Texts only: what was left out stays left out, and what is of a wrong type stays so."""
    for name, value in values.items():
        if isinstance(value, str):
            values[name] = known.get(name, value)


def authorize(case, bearer):
    case.headers.pop("Authorization", None)
    if bearer:
        case.headers["Authorization"] = f"Bearer {bearer}"
