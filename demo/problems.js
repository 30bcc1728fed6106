// Why a call cannot be, and what to do about it.

/** `retryAfter` is in seconds. */
export class Problem extends Error {
  constructor(title, detail, { status = null, retryAfter = null } = {}) {
    super(title);
    Object.assign(this, { title, detail, status, retryAfter });
  }
}

const MICROPHONE = {
  NotAllowedError: [
    "The microphone is blocked",
    "Allow it for this page, at the left end of the address bar, then press Connect.",
  ],
  NotFoundError: [
    "No microphone found",
    "Plug one in, or switch it on in the system’s sound settings, then press Connect.",
  ],
  NotReadableError: ["The microphone is taken", "Another program uses it. Close that, then press Connect."],
};

/** What getUserMedia threw, in words. */
export function microphoneProblem(error) {
  const [title, detail] = MICROPHONE[error.name] ?? [];
  return title ? new Problem(title, detail) : error;
}

export function noMicrophone() {
  const where = "Browsers give it to http://localhost and to https pages only. Open this page there.";
  return new Problem("No microphone on this address", where);
}

export function noServer(then) {
  return new Problem("The page’s server does not answer", `Start it again, then ${then}.`);
}

export function noPath() {
  const what = "Signaling worked, but no UDP packet came back. Check that nothing on the way blocks UDP.";
  return new Problem("No way through for the media", what);
}

export function lost() {
  return new Problem("The connection was lost", "Nothing came from the edge any more. Press Connect for another.");
}

export function notEncrypted() {
  return new Problem("The encryption failed", "DTLS did not complete. The edge’s log says why.");
}

/** The Problem in an answer other than 201, in the words of the edge where it has any. */
export async function refusal(response) {
  const said = await response.json().then((body) => body.error?.message, () => undefined);
  const { status } = response;
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  const [title, detail] = {
    401: ["The edge refused the token", "Start the page’s server again with the edge’s present token file."],
    502: ["The edge does not answer", said ?? "Check that it runs."],
    503: ["The edge has no free place", said ?? "Every transceiver is full or draining."],
  }[status] ?? [`The edge refused the call (${status})`, said ?? "Its log says why."];
  return new Problem(title, detail, { status, retryAfter });
}
