// Runs on the audio thread: how loud every hundredth of a second is, and when it ended on the audio clock.

const BLOCK = 512; // samples; a multiple of what comes at a time

class Ear extends AudioWorkletProcessor {
  #power = 0;
  #samples = 0;

  process([[samples]]) {
    // A track that has ended, or is not there yet, gives no channel: that is silence.
    if (samples) for (const x of samples) this.#power += x * x;
    this.#samples += samples?.length ?? 128;
    if (this.#samples >= BLOCK) {
      this.port.postMessage({ at_s: currentTime, power: this.#power / this.#samples });
      this.#power = this.#samples = 0;
    }
    return true;
  }
}

registerProcessor("ear", Ear);
