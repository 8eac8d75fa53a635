// Keeps a stream of events open. An EventSource cannot send a token, so this reads the stream itself.
//
//     connect --"ready"--> live --end, error, or silence--> lost --a pause that grows--> connect
//
// The server gives a sign of life every 5 s; a stream that is silent for 12 s is lost, whatever the network says.

import { head } from "./api.js";

const SILENCE_MS = 12_000;
const FIRST_MS = 500;
const MOST_MS = 15_000;
const MOST_TEXT = 1 << 20;

export class Stream {
  // event(kind, data); turned(state, details): "connecting", "live", "lost", or "refused" with the status
  constructor(path, event, turned) {
    this.path = path;
    this.event = event;
    this.turned = turned;
    this.pause = FIRST_MS;
    this.over = false;
    this.wake = null;
    this.cut = null;
    this.hurry = () => this.again();
    this.gone = () => this.cut?.abort();
    this.seen = () => {
      if (document.visibilityState === "visible") this.look();
    };
    window.addEventListener("online", this.hurry);
    window.addEventListener("offline", this.gone);
    document.addEventListener("visibilitychange", this.seen);
    this.watch = setInterval(() => this.look(), 1000);
  }

  async run() {
    while (!this.over) {
      this.turned("connecting");
      const status = await this.once();
      if (this.over) return;
      if (status === 401 || status === 403) return this.turned("refused", status);
      const pause = this.pause * (0.75 + Math.random() / 2);
      this.turned("lost", { until: Date.now() + pause, status });
      this.pause = Math.min(MOST_MS, this.pause * 2);
      await this.sleep(pause);
    }
  }

  // One connection, to its end. Returns the status where the server refused it, else 0.
  async once() {
    this.cut = new AbortController();
    this.heard = Date.now();
    try {
      const answer = await fetch(this.path, { headers: head(), signal: this.cut.signal, cache: "no-store" });
      if (!answer.ok || !answer.body) return answer.status;
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      await this.read(reader);
    } catch {
      // a network that fails and a stream that we cut end in the same way: lost
    } finally {
      this.cut.abort();
      this.cut = null;
    }
    return 0;
  }

  async read(reader) {
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      this.heard = Date.now();
      rest += value;
      const parts = rest.split(/\r?\n\r?\n/);
      rest = parts.pop();
      if (rest.length > MOST_TEXT) return;
      for (const part of parts) this.take(part);
    }
  }

  take(part) {
    let kind = "message";
    let data = "";
    for (const line of part.split(/\r?\n/)) {
      if (line.startsWith("event:")) kind = line.slice(6).trim();
      else if (line.startsWith("data:")) data += line.slice(5);
    }
    if (!data) return;
    let found;
    try {
      found = JSON.parse(data);
    } catch {
      return;
    }
    if (kind === "ready") {
      this.pause = FIRST_MS;
      this.turned("live");
    } else this.event(kind, found);
  }

  look() {
    if (this.cut && Date.now() - this.heard > SILENCE_MS) this.cut.abort();
  }

  again() {
    this.wake?.();
  }

  sleep(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    }).finally(() => (this.wake = null));
  }

  close() {
    this.over = true;
    clearInterval(this.watch);
    window.removeEventListener("online", this.hurry);
    window.removeEventListener("offline", this.gone);
    document.removeEventListener("visibilitychange", this.seen);
    this.cut?.abort();
    this.again();
  }
}
