// The admin API, and what its refusals mean to an operator. The browser's cookie, which no script sees, says who asks.

/** A refusal; `code` is the API's stable code, or "unreachable". */
export class Refused extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

/** Exchanges a key for the cookie: `{operator, name, role}`. */
export const signIn = (key) => call("POST", "/sign-in", { Authorization: `Bearer ${key}` });

/** Who has signed in here: `{operator, name, role}`. */
export const whoAmI = () => call("GET", "/sign-in");

export const signOut = () => call("DELETE", "/sign-in");

export const summary = () => call("GET", "/summary");

/** Bytes of all sessions. */
export const bytesUsed = () => call("GET", "/usage?limit=1");

export const sessions = (wanted) => call("GET", `/sessions?${new URLSearchParams(wanted)}`);

export const providers = () => call("GET", "/providers");

/** The newest events of these kinds, or of all when there are none. */
export const events = (kinds, limit) =>
  call("GET", `/events?${new URLSearchParams({ limit, ...(kinds.length > 0 && { kind: kinds.join(",") }) })}`);

/** Events from now on. */
export const liveEvents = () => new EventSource("/admin/v1/events/live");

/** `action` is `release`, `cut` or `remove`. */
export const act = (action, id) =>
  action === "remove"
    ? call("DELETE", `/sessions/${encodeURIComponent(id)}`)
    : call("POST", `/sessions/${encodeURIComponent(id)}/${action}`);

async function call(method, path, headers = {}) {
  const response = await fetch(`/admin/v1${path}`, {
    method,
    headers: { "Runit-Operator-Page": "1", ...headers },
  }).catch(() => {
    throw new Refused("The server cannot be reached. Trying again…", "unreachable");
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Refused(message(response, answer), answer.code ?? `status_${response.status}`);
  }
  return answer;
}

function message(response, { code, error }) {
  switch (code) {
    case "operator_key_required":
      return "This key opens nothing: it is wrong, or was revoked.";
    case "role_required":
      return "Your key may only look.";
    case "too_many_guesses":
      return `Too many wrong keys from your network. Try again in ${response.headers.get("Retry-After") ?? "some"} seconds.`;
    case "not_locked":
      return "Nobody holds this session any more.";
    case "unknown_session":
      return "This session is not there any more.";
    case "foreign_origin":
      return "The server takes this for another site's page: a proxy before it must pass Host on as it is.";
    default:
      return `The server refused: ${error ?? `status ${response.status}`}.`;
  }
}
