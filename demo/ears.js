// How loud the person and the agent are, hundredths of a second apart.

const LOUD = { microphone: 0.35, agent: 0.2 };

/** Listens to both ends of a call. `hear(side, at_ms, loud)` is called for every block, `side` being "microphone" or
 * "agent" and `at_ms` on the clock of performance.now(). */
export class Ears {
  levels = { microphone: 0, agent: 0 }; // 0 to 1: the loudest since they were last taken

  constructor(hear) {
    this.hear = hear;
    this.context = new AudioContext();
    this.ready = this.context.audioWorklet.addModule("ear.js");
  }

  /** Listens to `stream`, in the place of what `side` was before. */
  async listen(side, stream) {
    await this.ready;
    if (this.context.state === "closed") return;
    const ear = new AudioWorkletNode(this.context, "ear", { numberOfOutputs: 0 });
    ear.port.onmessage = ({ data }) => this.#block(side, data);
    this.context.createMediaStreamSource(stream).connect(ear);
  }

  #block(side, { at_s, power }) {
    if (this.context.state === "closed") return;
    const level = loudness(power);
    this.levels[side] = Math.max(this.levels[side], level);
    // A busy page gets its messages late; the audio clock tells by how much.
    const late_ms = 1000 * Math.max(0, this.context.currentTime - at_s);
    this.hear(side, performance.now() - late_ms, level > LOUD[side]);
  }

  /** The levels, which begin anew. */
  take() {
    const { levels } = this;
    this.levels = { microphone: 0, agent: 0 };
    return levels;
  }

  close() {
    if (this.context.state !== "closed") this.context.close();
  }
}

/** 0 at -60 dB and below, 1 at -5 dB and above. */
function loudness(power) {
  return Math.min(1, Math.max(0, (10 * Math.log10(power + 1e-12) + 60) / 55));
}
