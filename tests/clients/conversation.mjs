// What every client here does once it is connected: greets, is answered, speaks, asks what was heard, hangs up. A client
// brings its peer connection; only the registry's packages differ.

const PACKETS = 100; // two seconds
const FRAMES = 50; // of ours that the agent has heard

const soon = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// The conversation's events: `take` each message of the channel, `of` waits for one of a type.
export class Events {
  #seen = [];
  #waiting = [];

  take(text) {
    const event = JSON.parse(text);
    this.#seen.push(event);
    this.#waiting = this.#waiting.filter((wake) => !wake(event));
  }

  of(type) {
    const seen = this.#seen.find((event) => event.type === type);
    return seen ? Promise.resolve(seen) : this.next(type);
  }

  next(type) {
    return new Promise((resolve) => this.#waiting.push((event) => event.type === type && (resolve(event), true)));
  }
}

export async function place(url, token, sdp, query = "") {
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/sdp" };
  const placed = await fetch(`${url}/v1/realtime/calls?model=loopback${query}`, { method: "POST", body: sdp, headers });
  const body = await placed.text();
  if (placed.status !== 201) throw new Error(`${placed.status}: ${body}`);
  const where = url + placed.headers.get("Location");
  return { answer: body, hangUp: async () => (await fetch(where, { method: "DELETE", headers })).status };
}

// `send` puts an event's text on the channel, `heard` counts the packets of the agent's voice so far.
export async function converse(events, send, heard) {
  await events.of("session.created");
  send(JSON.stringify({ type: "session.update", session: { type: "realtime", instructions: "Be kind." } }));
  const updated = await events.of("session.updated");
  while (heard() < PACKETS) await soon(50);
  let media;
  do {
    const told = events.next("firsthop.media");
    send(JSON.stringify({ type: "firsthop.media.retrieve" }));
    media = await told;
    await soon(50);
  } while (!(media.heard.heard >= FRAMES));
  return { instructions: updated.session.instructions, heard: heard(), media: media.heard };
}
