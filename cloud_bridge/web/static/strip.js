// Draws the last minute of a camera, and the chart of its verdicts, on canvases: no element for each verdict.
//
// Height and shape say what colour says: quiet is a low bar, unsure a half one with a gap, a risk a full one.

let colours = null;

export function forgetColours() {
  colours = null;
}

function colour(name) {
  if (!colours) {
    const style = getComputedStyle(document.documentElement);
    colours = Object.fromEntries(["quiet", "bad", "warn"].map((each) => [each, style.getPropertyValue(`--bar-${each}`)]));
    colours.line = style.getPropertyValue("--edge");
  }
  return colours[name];
}

// The size of the canvas in its own pixels; made anew where the element changed. Sizes come from an observer, since
// reading them here would lay the page out again for every camera and second.
const sizes = new WeakMap();
const observer = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    const scale = window.devicePixelRatio || 1;
    const size = { width: Math.round(contentRect.width * scale), height: Math.round(contentRect.height * scale) };
    sizes.set(target, size);
    target.width = size.width;
    target.height = size.height;
    target.draw?.();
  }
});

// What is out of sight is not drawn; it is when it comes into sight.
const hidden = new WeakSet();
const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) hidden.add(target);
    else if (hidden.delete(target)) target.draw?.();
  }
});

export function canvas(className, draw) {
  const made = document.createElement("canvas");
  made.className = className;
  made.setAttribute("role", "img");
  made.draw = draw;
  observer.observe(made);
  sight.observe(made);
  return made;
}

export const kindOf = (row, quiet) => (row.label !== quiet ? "risk" : row.unsure || row.late ? "unsure" : "quiet");

export function drawMinute(target, rows, now_s, ward, seconds) {
  const size = sizes.get(target);
  if (!size?.width || hidden.has(target)) return;
  const brush = target.getContext("2d");
  brush.clearRect(0, 0, size.width, size.height);
  const wide = size.width / seconds;
  const bar = Math.max(1, wide * Math.max(0.75, ward.slot_s * 0.8));
  for (const [kind, { ink, parts }] of Object.entries(BARS)) {
    brush.fillStyle = colour(ink); // once for all bars of a kind: a browser parses it each time
    for (const row of rows) {
      const x = size.width - (now_s - row.at) * wide;
      if (x < -wide || kindOf(row, ward.quiet) !== kind) continue;
      for (const [from, high] of parts) brush.fillRect(x - wide, size.height * from, bar, size.height * high);
    }
  }
}

// Of each kind: its colour, and where its parts begin and how high they are, as shares of the height.
const BARS = {
  quiet: { ink: "quiet", parts: [[0.7, 0.3]] },
  unsure: { ink: "warn", parts: [[0.45, 0.2], [0.75, 0.25]] },
  risk: { ink: "bad", parts: [[0, 1]] },
};

export const risk = (row, quiet) => (row.label === quiet ? 1 - row.p : row.p);

export function drawChart(target, rows, ward) {
  const size = sizes.get(target);
  if (!size?.width || !rows.length) return;
  const brush = target.getContext("2d");
  brush.clearRect(0, 0, size.width, size.height);
  brush.fillStyle = colour("line");
  for (const part of [0.25, 0.5, 0.75]) brush.fillRect(0, size.height * part, size.width, 1);
  const [first, last] = [rows[0].at, rows[rows.length - 1].at];
  const room = Math.max(last - first, 20);
  const wide = Math.max(2, size.width / (room / ward.slot_s + 1));
  for (const row of rows) {
    const high = Math.max(2, risk(row, ward.quiet) * size.height);
    const x = ((row.at - first) / room) * (size.width - wide);
    brush.fillStyle = colour({ risk: "bad", unsure: "warn", quiet: "quiet" }[kindOf(row, ward.quiet)]);
    brush.fillRect(x, size.height - high, wide * 0.9, high);
  }
}

// "58 quiet, 2 fall": what a strip shows, in words.
export function counted(rows, name, none) {
  const counts = new Map();
  for (const row of rows) counts.set(row.label, (counts.get(row.label) ?? 0) + 1);
  return [...counts].map(([label, count]) => `${count} ${name(label)}`).join(", ") || none;
}
