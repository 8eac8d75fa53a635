// Two soft tones for an alert that nobody has seen, again every 20 s. A browser allows sound after a tap alone.

import { choose, chosen } from "./kept.js";

const AGAIN_MS = 20_000;

export class Sound {
  constructor() {
    this.context = null;
    this.rung = 0;
    this.tapped = () => this.wake();
    window.addEventListener("pointerdown", this.tapped);
    window.addEventListener("keydown", this.tapped);
  }

  get wanted() {
    return chosen("sound", "on") === "on";
  }

  get ready() {
    return this.context?.state === "running";
  }

  turn(on) {
    choose("sound", on ? "on" : "off");
    if (on) this.wake().then(() => this.ring(true));
  }

  async wake() {
    if (!this.wanted || this.ready) return;
    try {
      this.context ??= new AudioContext();
      await this.context.resume();
    } catch {
      this.context = null; // no sound on this device; the page says that it is not ready
    }
    this.woke?.();
  }

  // Rings where something waits; `now` at once, else when the last time is a while ago.
  ring(now = false) {
    if (!this.wanted || !this.ready) return;
    if (!now && Date.now() - this.rung < AGAIN_MS) return;
    this.rung = Date.now();
    for (const [at, pitch] of [[0, 660], [0.22, 880]]) this.tone(this.context.currentTime + at, pitch);
  }

  tone(at, pitch) {
    const voice = this.context.createOscillator();
    const loud = this.context.createGain();
    voice.frequency.value = pitch;
    loud.gain.setValueAtTime(0.0001, at);
    loud.gain.exponentialRampToValueAtTime(0.35, at + 0.02);
    loud.gain.exponentialRampToValueAtTime(0.0001, at + 0.5);
    voice.connect(loud).connect(this.context.destination);
    voice.start(at);
    voice.stop(at + 0.55);
  }
}
