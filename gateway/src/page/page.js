"use strict";
const $ = id => document.getElementById(id);
const text = (id, value) => { const at = $(id); if (at.textContent !== String(value)) at.textContent = value; };
const tone = (node, name) => { node.classList.remove("good", "warn", "bad", "busy"); if (name) node.classList.add(name); };
const svg = (name, attributes) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  return node;
};
const span = seconds => {
  seconds = Math.max(0, Math.floor(seconds));
  const h = Math.floor(seconds / 3600), m = Math.floor(seconds / 60) % 60, s = seconds % 60;
  return h ? (m ? `${h} h ${m} min` : `${h} h`) : m ? (s ? `${m} min ${String(s).padStart(2, "0")} s` : `${m} min`) : `${s} s`;
};
const clock = ms => new Date(ms).toLocaleTimeString([], { hour12: false });
const PHASES = { cold: "busy", fresh: "good", refreshing: "busy", aging: "warn", expired: "bad", failing: "bad" };
const toneOf = outcome => outcome === "ok" ? "good" : "bad";

let last = null, at = 0;

function draw(now) {
  const { status } = now;
  document.body.classList.remove("gone");
  text("phase", status.phase);
  tone($("phase"), PHASES[status.phase]);
  tone($("token"), status.expires_in === null ? "busy" : PHASES[status.phase] === "busy" ? "good" : PHASES[status.phase]);
  text("uptime", `up ${span(now.uptime)}`);
  text("generation", status.generation ? `number ${status.generation}${status.rejected ? ", rejected" : ""}` : "");
  text("scope", status.scope ?? "");
  text("next", status.next_attempt_in ? `next attempt in ${span(status.next_attempt_in + 1)}` : "");

  const sum = counts => counts[0] + counts[1] + counts[2];
  // The second that is running is not over: the one before it is told.
  text("rate", sum(now.requests[now.requests.length - 2]));
  text("total", now.total.toLocaleString("en").replaceAll(",", "\u202f"));
  text("flying", now.in_flight);
  const peak = Math.max(1, ...now.requests.map(sum));
  text("peak", `peak ${peak} a second`);
  $("requests").setAttribute("aria-label", `Requests a second in the last 2 minutes, at most ${peak}`);
  const bars = [svg("rect", { x: 0, y: 95, width: 720, height: 1, fill: "var(--track)" })];
  now.requests.forEach((counts, second) => {
    let y = 95;
    counts.forEach((count, kind) => {
      if (!count) return;
      const height = Math.max(1.5, count / peak * 92);
      y -= height;
      bars.push(svg("rect", { x: second * 6 + 0.75, y, width: 4.5, height, rx: 1, fill: ["var(--good)", "var(--warn)", "var(--bad)"][kind] }));
    });
  });
  $("requests").replaceChildren(...bars);

  text("used", now.used);
  text("used-of", `of ${now.allowed} in ${span(now.per)}`);
  text("frees", now.frees_in === null ? "" : `one comes free in ${span(now.frees_in + 1)}`);
  text("ever", `${status.token_requests} in all`);
  $("pips").classList.toggle("spent", now.used >= now.allowed);
  $("pips").replaceChildren(...Array.from({ length: Math.min(now.allowed, 30) }, (_, n) => {
    const pip = document.createElement("i");
    pip.className = n < now.used ? "used" : "";
    return pip;
  }));

  text("error-at", now.last_error ? clock(now.last_error.at) : "");
  text("error-text", now.last_error ? now.last_error.what : "none");
  $("error-text").classList.toggle("quiet", !now.last_error);

  const dots = [svg("rect", { x: 0, y: 11, width: 720, height: 2, rx: 1, fill: "var(--track)" })];
  for (const refresh of now.refreshes) {
    const x = 714 - (now.now - refresh.at) / 600000 * 708;
    if (x < 4) continue;
    dots.push(svg("rect", { x: x - 2.5, y: 3, width: 5, height: 18, rx: 2.5, fill: `var(--${toneOf(refresh.outcome)})` }));
  }
  $("refreshes").replaceChildren(...dots);
  $("list").replaceChildren(...now.refreshes.slice(0, 6).map(refresh => {
    const row = document.createElement("tr");
    row.className = toneOf(refresh.outcome);
    const cell = value => { const td = document.createElement("td"); td.textContent = value; row.append(td); return td; };
    cell(clock(refresh.at));
    cell(refresh.cause);
    const outcome = cell(refresh.outcome);
    const dot = document.createElement("span");
    dot.className = "dot";
    outcome.prepend(dot);
    cell(`${refresh.ms} ms`);
    return row;
  }));
}

function move() {
  requestAnimationFrame(move);
  if (!last) return;
  const { status, life } = last;
  if (status.expires_in === null) { text("left", "none yet"); text("left-of", ""); return; }
  const left = Math.max(0, status.expires_in - (performance.now() - at) / 1000);
  text("left", left > 0 ? span(left) : "expired");
  text("left-of", left > 0 && life > 0 ? `left of ${span(Math.round(life))}` : "");
  const share = life > 0 ? Math.min(1, left / life) : 0;
  $("life").style.width = `${share * 100}%`;
  const bar = $("life").parentNode;
  bar.setAttribute("aria-valuenow", Math.round(share * 100));
  bar.setAttribute("aria-valuetext", `${$("left").textContent} ${$("left-of").textContent}`);
}
requestAnimationFrame(move);

function listen() {
  const events = new EventSource("/events");
  events.onmessage = event => { last = JSON.parse(event.data); at = performance.now(); draw(last); };
  events.onerror = () => {
    last = null;
    document.body.classList.add("gone");
    text("phase", "gateway gone");
    tone($("phase"), "bad");
    // A connection that broke off is made anew by itself; one refused is not.
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  };
}
listen();
