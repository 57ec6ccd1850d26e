// The control API, and what its refusals mean to a person.

/** A refusal; `code` is the API's stable code, or "unreachable". */
export class Refused extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

/** A token for a free session: `{sessionId, accessToken, url, serverUrl, reconnectSecret, hardware, pricing}`. */
export async function requestSession(sessionId) {
  const given = await call("POST", "/renter/request", { body: JSON.stringify({ sessionId }) });
  const url = new URL(given.url);
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    throw new Refused("The server answered with something that is not a web address.", "malformed");
  }
  return { ...given, url: url.href };
}

export const release = (token) => call("POST", "/renter/release", { token });

/** Moves the lock to the address that this call comes from; the secret is the proof that the token alone is not. */
export const reconnect = (token, reconnectSecret) =>
  call("POST", "/renter/reconnect", { token, body: JSON.stringify({ reconnectSecret }) });

export const heartbeat = (token) => call("POST", "/renter/heartbeat", { token });

export const usage = (token) => call("GET", "/renter/usage", { token });

/** What the lock that this token took has used, while it stands and afterwards. */
export const statement = (token) => call("GET", "/renter/statement", { token });

/** How a session's data is used, at once and whenever it changes. The token is in the path: a stream has no headers. */
export function usageEvents(token) {
  return new EventSource(`/renter/usage/${encodeURIComponent(token)}/events`);
}

async function call(method, path, { token, body }) {
  const headers = {
    ...(token && { Authorization: `Bearer ${token}` }),
    ...(body && { "Content-Type": "application/json" }),
  };
  const response = await fetch(path, { method, headers, body }).catch(() => {
    throw new Refused("The server cannot be reached. Check your connection and try again.", "unreachable");
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Refused(message(response, answer), answer.code ?? `status_${response.status}`);
  }
  return answer;
}

function message(response, { code, error }) {
  switch (code) {
    case "no_sessions_available":
      return "Somebody was faster: this session is taken. Pick another one.";
    case "rate_limited":
    case "too_many_reconnects":
      return `Too many requests. Try again in ${response.headers.get("Retry-After") ?? "some"} seconds.`;
    case "ip_mismatch":
      return "This session was taken from another network address than the one that you have now.";
    case "unknown_token":
      return "This session is not yours any more: it was released, or you were away for too long.";
    default:
      return `The server refused: ${error ?? `status ${response.status}`}.`;
  }
}
