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
const toneOf = outcome => outcome === "ok" || outcome === "from the store" ? "good" : "bad";

let last = null, at = 0;

// Where a token is in its life, in the words of the library's status.
function toneOfToken({ has_token, status }) {
  if (!has_token) return status && status.last_error === null && status.generation === 0 ? "busy" : "bad";
  return status.last_error !== null || status.rejected ? "warn" : "good";
}

const wording = phase => phase.replaceAll("_", " ");

function drawTokens(now) {
  const all = $("tokens");
  const many = now.organizations.length > 1;
  all.classList.toggle("many", many);
  while (all.children.length > now.organizations.length) all.lastChild.remove();
  while (all.children.length < now.organizations.length) all.append($("token").content.cloneNode(true));
  now.organizations.forEach((organization, n) => {
    const card = all.children[n];
    const { slug, status, store_problem } = organization;
    const put = (name, value) => {
      const node = card.querySelector(name);
      if (node.textContent !== value) node.textContent = value;
    };
    tone(card, toneOfToken(organization));
    put("h2", many ? slug : "Token");
    put(".phase", many ? (status ? wording(status.phase) : "not used yet") : "");
    put(".generation", status && status.generation ? `number ${status.generation}${status.rejected ? ", rejected" : ""}` : "");
    put(".scope", status?.scope ?? "");
    const next = status?.next_attempt_in ? `next attempt in ${span(status.next_attempt_in + 1)}` : "";
    put(".next", [status?.last_error ? wording(status.last_error) : "", next].filter(Boolean).join(", "));
    put(".store", store_problem === null ? "" : `store out of use: ${store_problem}`);
  });
}

function draw(now) {
  document.body.classList.remove("gone");
  const [first] = now.organizations;
  const with_token = now.organizations.filter(organization => organization.has_token).length;
  const many = now.organizations.length > 1;
  const phase = many ? `${with_token} of ${now.organizations.length} tokens` : wording(first.status.phase);
  text("phase", now.leaving ? "leaving" : phase);
  tone($("phase"), now.leaving ? "warn" : many ? (with_token === now.organizations.length ? "good" : with_token ? "warn" : "bad") : toneOfToken(first));
  text("upstream", `upstream ${now.upstream}`);
  text("organization", many ? `${now.organizations.length} organizations` : first.slug ? `organization ${first.slug}` : "");
  text("uptime", `version ${now.version}, up ${span(now.uptime)}`);
  drawTokens(now);

  const sum = counts => counts[0] + counts[1] + counts[2];
  // The current second is not over: show the one before it.
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
  const ever = now.organizations.reduce((count, { status }) => count + (status?.token_requests ?? 0), 0);
  text("ever", `${ever} in all`);
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
    cell([refresh.organization, refresh.cause].filter((_, n) => n || many).join(": "));
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
  last.organizations.forEach(({ status, lifetime }, n) => {
    const card = $("tokens").children[n];
    const put = (name, value) => {
      const node = card.querySelector(name);
      if (node.textContent !== value) node.textContent = value;
    };
    const none = !status || status.expires_in === null;
    const left = none ? 0 : Math.max(0, status.expires_in - (performance.now() - at) / 1000);
    const share = lifetime ? Math.min(1, left / lifetime) : 0;
    put(".left", none ? "none yet" : left > 0 ? span(left) : "expired");
    put(".left-of", left > 0 && lifetime ? `left of ${span(Math.round(lifetime))}` : "");
    const bar = card.querySelector(".bar");
    bar.firstChild.style.width = `${share * 100}%`;
    bar.setAttribute("aria-valuenow", Math.round(share * 100));
    bar.setAttribute("aria-valuetext", `${card.querySelector(".left").textContent} ${card.querySelector(".left-of").textContent}`);
  });
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
    // The browser reconnects after a break, but not after a refusal.
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  };
}
listen();
