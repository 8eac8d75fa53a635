// What the page knows of its cameras and alerts, kept current by the stream.
//
//     stream --events--> Ward --told(what)--> whoever shows it, once a frame at most
//     on every connection, and every 10 s: the overview, which is the truth
//
// Events that come while an overview is under way are kept and taken after it, so none is lost between the two.

import { ApiError, ask } from "./api.js";
import { Stream } from "./stream.js";

export const MINUTE_S = 60;
const EVERY_MS = 10_000;
const KEPT_S = 90;
const SILENT_S = 60;
const ABOUT_CAMERAS = new Set(["blind", "late", "not watching", "stale", "untrusted key", "clock skew", "bridge lost",
  "degraded"]);
const ORDER = ["info", "warning", "critical", "emergency"];

// A severity that the page does not know is as a risk's: what is new must not sink.
function severity(alert) {
  const known = ORDER.indexOf(alert.severity);
  return known < 0 ? ORDER.indexOf(aboutCamera(alert) ? "warning" : "critical") : known;
}

export const ofCamera = (label) => ABOUT_CAMERAS.has(label);
export const aboutCamera = (alert) => ofCamera(alert.label);

// now_s: a camera that says nothing for a minute is without news, whether the bridge has told so or not.
export function health(camera, now_s) {
  if (camera.offline) return "offline";
  for (const label of ["stale", "not watching", "blind", "late"]) if (camera.open.includes(label)) return label;
  if (!camera.heard_s) return "waiting";
  return now_s - camera.heard_s > SILENT_S ? "stale" : "watching";
}

export class Ward {
  constructor(told, refused) {
    this.told = told;
    this.refused = refused;
    this.who = { name: "", role: "viewer", until_s: 0 };
    this.quiet = "normal";
    this.slot_s = 1;
    this.draws = false;
    this.cameras = new Map();
    this.alerts = new Map();
    this.minutes = new Map();
    this.link = { state: "connecting", since: Date.now(), until: 0, status: 0 };
    this.well = true;
    this.known = false;
    this.skew_s = 0;
    this.counts = { verdicts: 0, alerts: 0, lost: 0 };
    this.waiting = null;
    this.whole = false;
    this.changed = new Set();
    this.touched = new Set(); // cameras with a new verdict since the last telling
    this.stream = new Stream("/v1/stream", (kind, data) => this.event(kind, data), (...turn) => this.turned(...turn));
    this.clock = setInterval(() => this.refresh(), EVERY_MS);
  }

  begin() {
    this.stream.run();
  }

  close() {
    clearInterval(this.clock);
    this.stream.close();
  }

  get live() {
    return this.link.state === "live" && this.known;
  }

  now() {
    return Date.now() / 1000 + this.skew_s;
  }

  may(role) {
    const roles = ["viewer", "nurse", "operator", "admin"];
    return roles.indexOf(this.who.role) >= roles.indexOf(role);
  }

  // Tells what changed, once a frame; a page that nobody sees is told by a timer, since it gets no frames.
  say(...what) {
    if (!this.changed.size) {
      if (document.visibilityState === "visible") requestAnimationFrame(() => this.flush());
      else setTimeout(() => this.flush(), 50);
    }
    for (const each of what) this.changed.add(each);
  }

  flush() {
    const changed = this.changed;
    this.changed = new Set();
    this.told(changed);
    this.touched.clear();
  }

  turned(state, details) {
    if (state === "refused") return this.refused(details);
    this.link = { state, since: Date.now(), until: details?.until ?? 0, status: details?.status ?? 0 };
    if (state === "live") this.refresh(true);
    else if (state === "lost") this.known = false;
    this.say("link");
  }

  // Ask for everything. Where that fails the stream is cut: a page that cannot ask must not look alive.
  async refresh(whole = false) {
    if (this.link.state !== "live" || (this.waiting && !whole)) return;
    const mine = (this.waiting = []);
    this.whole = whole;
    try {
      this.take(await ask("/v1/overview"));
      if (whole) this.fill(await ask("/v1/minute"));
    } catch (error) {
      this.failed(error, mine);
      return;
    }
    if (this.waiting !== mine) return;
    this.waiting = null;
    for (const [kind, data] of mine) this.event(kind, data);
    this.known = true;
    this.say("link", "alerts", "cameras", ...(whole ? ["rows"] : []));
  }

  failed(error, mine) {
    if (!(error instanceof ApiError)) throw error;
    if (this.waiting !== mine) return;
    this.waiting = null;
    if (error.status === 401 || error.status === 403) this.refused(error.status);
    else if (error.status !== 429) this.stream.gone();
    for (const [kind, data] of mine) this.event(kind, data);
  }

  take(found) {
    this.skew_s = found.now_s - Date.now() / 1000;
    this.who = found.who;
    this.quiet = found.quiet;
    this.slot_s = found.slot_s;
    this.draws = found.draws === true;
    this.well = found.well;
    this.cameras = new Map(found.cameras.map((camera) => [camera.camera, camera]));
    this.alerts = new Map(found.alerts.map((alert) => [keyOf(alert), alert]));
    for (const name of this.minutes.keys()) if (!this.cameras.has(name)) this.minutes.delete(name);
    this.say("link", "alerts", "cameras");
  }

  fill(found) {
    this.minutes = new Map();
    for (const [camera, rows] of Object.entries(found.rows)) {
      this.minutes.set(camera, rows.map(([at, label, p, late, unsure]) => ({ at, label, p, late, unsure })));
    }
  }

  event(kind, data) {
    if (this.waiting && (this.whole || kind !== "verdict")) {
      this.waiting.push([kind, data]);
      if (kind === "verdict") return;
    }
    if (kind === "verdict") this.verdict(data);
    else if (kind === "alert") this.alert(data);
    else if (kind === "seen") this.seen(data);
    else if (kind === "comment") this.commented(data);
    else if (kind === "lost") {
      this.counts.lost += data.count;
      this.refresh(true);
    }
  }

  verdict(data) {
    const at = data.told_s ?? this.now();
    const rows = this.minutes.get(data.camera) ?? [];
    rows.push({ at, label: data.label, p: data.probability, late: data.late, unsure: data.unsure });
    while (rows.length && rows[0].at < at - KEPT_S) rows.shift();
    this.minutes.set(data.camera, rows);
    const camera = this.cameras.get(data.camera);
    if (camera) {
      camera.heard_s = at;
      camera.offline = false;
    }
    this.counts.verdicts += 1;
    this.touched.add(data.camera);
    this.say("minutes");
    this.listener?.(data);
  }

  alert(data) {
    this.counts.alerts += 1;
    const camera = this.cameras.get(data.camera);
    if (camera) {
      camera.open = camera.open.filter((label) => label !== data.label);
      if (data.raised) camera.open.push(data.label);
    }
    if (data.raised) {
      const former = this.alerts.get(keyOf(data)) ?? { seen_by: "", seen_s: 0 };
      this.alerts.set(keyOf(data), { ...former, ...data, made_s: data.told_s ?? this.now(), open: true });
    } else this.cleared(data);
    this.say("alerts", "cameras");
  }

  // A risk that is over stays until somebody has seen it.
  cleared(data) {
    for (const [key, alert] of this.alerts) {
      if (alert.camera !== data.camera || alert.label !== data.label || !alert.open) continue;
      if (alert.seen_by || aboutCamera(alert)) this.alerts.delete(key);
      else this.alerts.set(key, { ...alert, open: false });
    }
  }

  seen(data) {
    const alert = this.alerts.get(keyOf(data));
    if (!alert) return;
    if (alert.open) this.alerts.set(keyOf(data), { ...alert, seen_by: data.seen_by, seen_s: data.seen_s });
    else this.alerts.delete(keyOf(data));
    this.say("alerts");
  }

  commented(data) {
    const alert = this.alerts.get(keyOf(data));
    if (!alert) return;
    this.alerts.set(keyOf(data), { ...alert, comments_count: data.count });
    this.say("alerts");
  }

  // The inbox: what nobody has seen first; then the most severe, then the newest.
  inbox() {
    const rank = (alert) => [alert.seen_by ? 0 : 1, severity(alert), alert.made_s];
    return [...this.alerts.entries()].sort(([, a], [, b]) => {
      const [left, right] = [rank(a), rank(b)];
      const at = left.findIndex((value, place) => value !== right[place]);
      return at < 0 ? 0 : right[at] - left[at];
    });
  }

  unseen() {
    return [...this.alerts.values()].filter((alert) => !alert.seen_by);
  }
}

// The changes of one alert have one name: that of the first. What the store no longer has is known by its label.
const keyOf = (alert) => alert.first_id || alert.id || `${alert.camera} ${alert.label}`;
