// The page: asks `data.json` every second and brings what is shown up to date.
//
// Labels, task names and messages may come from strangers. They are only ever set as text, never as markup, and the
// page's Content-Security-Policy would stop them otherwise. What did not change is left alone, so that a selection,
// an open stack or the scroll position outlives an update.

const EVERY = 1000; // ms between two looks
const PATIENCE = 5000; // ms for an answer
const SPANS = [60, 300]; // s that the charts show: at first, and at most
const GAP = 10; // s without a look that break a line
const SETTLED = 0.25; // s held below which a cell shows no age: it would only flicker

// Without a name and password that the page's own address may have: fetch refuses those.
const DATA = new URL("data.json", location.origin + location.pathname);

const byId = (id) => document.getElementById(id);

// ---------------------------------------------------------------------------------------------------- small helpers

function copy(template) {
  const node = byId(template).content.firstElementChild.cloneNode(true);
  node.part_ = Object.fromEntries([...node.querySelectorAll("[data-is]")].map((part) => [part.dataset.is, part]));
  return node;
}

function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Make the children of `parent` match `items`, one each, in order; a child stays the same node as long as its key. */
function sync(parent, items, template, keyOf, fill) {
  const old = new Map([...parent.children].map((child) => [child.key_, child]));
  items.forEach((item, index) => {
    const key = keyOf(item, index);
    const node = old.get(key) ?? copy(template);
    node.key_ = key;
    old.delete(key);
    fill(node, node.part_, item, index);
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null);
  });
  for (const node of old.values()) node.remove();
}

function duration(seconds) {
  if (seconds === 0) return "0";
  if (seconds < 0.0009995) return `${(1e6 * seconds).toFixed(0)} µs`;
  if (seconds < 0.9995) return `${(1e3 * seconds).toFixed(seconds < 0.09995 ? 1 : 0)} ms`;
  if (seconds < 99.5) return `${seconds.toFixed(seconds < 9.995 ? 2 : 1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** A time in whole seconds. */
function roughly(seconds) {
  const whole = Math.round(seconds);
  return whole < 100 ? `${whole} s` : duration(whole);
}

/** How much of a bar a time fills: a millisecond is little, half a minute is all; each ten times more, as much again. */
const share = (seconds) => Math.min(1, Math.max(0, Math.log10(1 + 1000 * seconds) / Math.log10(1 + 30000)));

const number = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 10 && value % 1 ? 1 : 0 });
const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;
const clock = (at) => {
  const time = new Date(1000 * at);
  const two = (value) => String(value).padStart(2, "0");
  const fraction = String(time.getMilliseconds()).padStart(3, "0");
  return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}.${fraction}`;
};

// ------------------------------------------------------------------------------------------------------------ a pool

/** One pool's part of the page, and what this page has seen of it. */
class PoolView {
  constructor() {
    this.node = copy("pool");
    this.part = this.node.part_;
    this.history = []; // what each look found, oldest first: {at, used, waiting, acquires}
    this.unwanted = new Set(); // names of events that are not listed
  }

  show(pool, at) {
    const { part } = this;
    const previous = this.history.at(-1);
    this.history.push({ at, used: pool.used, waiting: pool.waiting, acquires: pool.acquires });
    while (this.history[0].at < at - SPANS[1] - GAP) this.history.shift();
    say(part.name, pool.pool);
    say(part.state, pool.state);
    part.state.dataset.state = pool.state;
    say(part.sizes, sizes(pool));
    this.showSlots(pool);
    this.showTiles(pool, previous && rates(previous, this.history.at(-1)));
    this.showChart("used", pool.max_size, at);
    this.showChart("waiting", Math.max(4, ...this.history.map((point) => point.waiting)), at);
    this.showPeople(pool);
    this.showTimes(pool);
    this.showEvents(pool);
  }

  showSlots(pool) {
    const held = [...pool.holders].sort((a, b) => a.connection - b.connection);
    const fill = (count, kind) => Array.from({ length: Math.max(0, count) }, () => ({ kind }));
    const cells = [
      ...held.map((holder) => ({ kind: "held", holder })),
      ...fill(pool.used - held.length, "busy"),
      ...fill(pool.idle, "idle"),
    ].slice(0, pool.max_size);
    cells.push(...fill(pool.max_size - cells.length, "vacant"));
    this.part.slots.classList.toggle("narrow", cells.length > 10);
    const words = { busy: "being opened, checked, reset or handed on", idle: "idle", vacant: "vacant: no connection" };
    sync(this.part.slots, cells, "cell", (_, index) => index, (node, part, { kind, holder }, index) => {
      node.className = `cell ${kind}`;
      node.classList.toggle("right", index >= cells.length / 2);
      node.tabIndex = holder ? 0 : -1;
      say(part.who, holder ? holder.label ?? holder.task : "");
      say(part.age, holder && holder.held >= SETTLED ? duration(holder.held) : "");
      const about = holder
        ? `connection ${holder.connection}\n${holder.label ?? "no label"}\n${holder.task}\nheld for ${duration(holder.held)}`
        : words[kind];
      say(part.tip, about);
      node.setAttribute("aria-label", about);
    });
  }

  showTiles(pool, rate) {
    const { part } = this;
    const waits = pool.wait_times;
    const uses = pool.use_times;
    const { acquire_timeout: timeouts, create_fail: unopened, acquire_reject: rejected, acquire_fail: failed } = pool.counts;
    const tile = (name, value, sub, state = "") => {
      say(part[name], value);
      say(part[`${name}-sub`], sub);
      part[name].parentElement.dataset.state = state;
    };
    const full = pool.used >= pool.max_size;
    tile("used", `${pool.used} of ${pool.max_size}`, `${pool.idle} idle, ${pool.max_size - pool.size} vacant`, full ? "full" : "");
    const oldest = pool.waiting ? `oldest for ${duration(pool.oldest_waiter)}` : "nobody queues";
    tile("waiting", number(pool.waiting), oldest, pool.waiting ? "warn" : "");
    tile("wait", waits.count ? duration(waits.p99) : "–", waits.count ? `half within ${duration(waits.p50)}` : "none in the last minute");
    tile("held", uses.count ? duration(uses.p99) : "–", pool.holders.length ? `longest now ${duration(pool.oldest_checkout)}` : "nobody holds one");
    const paths = ["idle", "new", "queued"];
    const total = rate ? paths.reduce((sum, path) => sum + rate[path], 0) : 0;
    tile("rate", rate ? `${number(total)}/s` : "–", rate ? paths.filter((path) => rate[path] > 0).map((path) => `${number(rate[path])} ${path}`).join(", ") || "none just now" : "counting …");
    const counted = [[timeouts, "timeout"], [unopened, "failed connect"], [rejected, "rejection"], [failed, "error"]];
    const seen = counted.filter(([count]) => count > 0).map(([count, word]) => plural(count, word));
    tile("failed", number(timeouts + unopened + rejected + failed), seen.join(", ") || "none seen", seen.length ? "bad" : "");
  }

  showChart(name, top, at) {
    const { part } = this;
    const span = Math.min(SPANS[1], Math.max(SPANS[0], at - this.history[0].at));
    const x = (point) => (300 * (1 - (at - point.at) / span)).toFixed(2);
    const y = (point) => (99 - 98 * Math.min(1, point[name] / top)).toFixed(2);
    let line = "";
    let area = "";
    for (const piece of unbroken(this.history)) {
      // A look is all that is known of the second before it: steps, not slopes.
      const steps = piece.map((point, index) => (index ? `V${y(point)}H${x(point)}` : `M${x(point)} ${y(piece[1] ?? point)}`)).join("");
      line += steps;
      area += `${steps}V100H${x(piece[0])}Z`;
    }
    part[`${name}-line`].setAttribute("d", line || "M0 0");
    part[`${name}-area`].setAttribute("d", area || "M0 0");
    say(part[`${name}-from`], `${roughly(span)} ago`);
    say(part[`${name}-range`], `now ${number(this.history.at(-1)[name])}, scale to ${number(top)}`);
  }

  showPeople(pool) {
    const { part } = this;
    const row = (parts, who, position, seconds) => {
      say(parts.number, position);
      say(parts.label, who.label ?? who.task);
      say(parts.task, who.label === null ? "" : who.task);
      say(parts.time, duration(seconds));
      parts.bar.style.setProperty("--share", share(seconds).toFixed(3));
    };
    sync(part.holders, pool.holders, "row", (holder) => holder.connection, (node, parts, holder) => {
      row(parts, holder, `#${holder.connection}`, holder.held);
      showStack(parts, holder.stack ?? []);
    });
    sync(part.waiters, pool.waiters.slice(0, 12), "row", (_, index) => index, (node, parts, waiter, index) =>
      row(parts, waiter, `${index + 1}.`, waiter.waited));
    part["no-holders"].hidden = pool.holders.length > 0;
    part["no-waiters"].hidden = pool.waiters.length > 0;
    say(part["queue-more"], pool.waiting > 12 ? `the first 12 of ${number(pool.waiting)}` : "");
  }

  showTimes(pool) {
    const rows = [["Wait for a connection", pool.wait_times], ["Connection held", pool.use_times]];
    sync(this.part.times, rows, "time", ([what]) => what, (node, parts, [what, times]) => {
      say(parts.what, what);
      say(parts.count, number(times.count));
      for (const key of ["p50", "p90", "p99", "max"]) say(parts[key], times.count ? duration(times[key]) : "–");
    });
  }

  showEvents(pool) {
    const { part } = this;
    const fill = (node, parts, event) => {
      node.dataset.level = event.level;
      say(parts.at, clock(event.at));
      say(parts.kind, event.event.replaceAll("_", " "));
      say(parts.label, event.label ?? "");
      say(parts.text, event.text);
    };
    sync(part.failures, pool.failures, "event", (event) => event.number, fill);
    const wanted = pool.events.filter((event) => !this.unwanted.has(event.event));
    sync(part.events, wanted, "event", (event) => event.number, fill);
    this.showKinds(pool);
    part["no-failures"].hidden = pool.failures.length > 0;
    part["no-events"].hidden = wanted.length > 0;
  }

  showKinds(pool) {
    const listed = new Set(pool.events.map((event) => event.event));
    const kinds = Object.keys(pool.counts).filter((kind) => listed.has(kind));
    sync(this.part.kinds, kinds, "switch", (kind) => kind, (node, part, kind) => {
      node.setAttribute("aria-pressed", String(!this.unwanted.has(kind)));
      say(part.kind, kind.replaceAll("_", " "));
      say(part.count, number(pool.counts[kind]));
      node.onclick = () => {
        if (!this.unwanted.delete(kind)) this.unwanted.add(kind);
        this.showEvents(pool); // at once, also while the page is paused
      };
    });
  }
}

function sizes(pool) {
  const errors = pool.subscriber_errors ? `; ${plural(pool.subscriber_errors, "error")} in handlers of its events` : "";
  const limits = pool.min_size ? `${pool.min_size} to ${pool.max_size}` : `up to ${pool.max_size}`;
  return `${plural(pool.size, "connection")}, ${limits} allowed${errors}`;
}

/** Acquires per second by path between two looks; nothing after a gap or when the counts began anew. */
function rates(before, now) {
  const seconds = now.at - before.at;
  if (!(seconds > 0 && seconds < GAP)) return undefined;
  const entries = Object.entries(now.acquires).map(([path, count]) => [path, (count - before.acquires[path]) / seconds]);
  return entries.some(([, rate]) => rate < 0) ? undefined : Object.fromEntries(entries);
}

/** The history in pieces within which no look is missing. */
function unbroken(history) {
  const pieces = [];
  history.forEach((point, index) => {
    if (index === 0 || point.at - history[index - 1].at > GAP) pieces.push([]);
    pieces.at(-1).push(point);
  });
  return pieces;
}

function showStack(parts, stack) {
  parts.details.hidden = stack.length === 0;
  if (stack.length === 0) return;
  const spot = (line) => `${line.file}:${line.line} in ${line.function}`;
  say(parts.where, spot(stack.at(-1)));
  sync(parts.stack, stack, "line", (_, index) => index, (node, part, line) => {
    say(part.at, spot(line));
    say(part.code, line.code);
  });
}

// ---------------------------------------------------------------------------------------------------------- the page

const views = new Map();
let process; // the one that answered last
let heard = Date.now();
let paused = false;
let timer;
let asking = false;

function show(data) {
  if (process !== data.pid) views.forEach((view) => (view.history = []));
  process = data.pid;
  say(byId("program"), `process ${data.pid} · aiosqlitepool ${data.version} · watched for ${roughly(data.at - data.since)}`);
  const names = data.pools.map((pool) => pool.pool);
  // Two pools may share a name.
  const keys = names.map((name, index) => `${name}\n${names.slice(0, index).filter((other) => other === name).length}`);
  for (const [key, view] of views) {
    if (keys.includes(key)) continue;
    view.node.remove();
    views.delete(key);
  }
  data.pools.forEach((pool, index) => {
    if (!views.has(keys[index])) views.set(keys[index], new PoolView());
    const view = views.get(keys[index]);
    view.show(pool, data.at);
    if (!view.node.isConnected) byId("pools").append(view.node);
  });
  byId("none").hidden = data.pools.length > 0;
  document.title = names.length === 1 ? `${names[0]} · connection pool` : "Connection pools";
}

function status(state, text) {
  byId("status").dataset.state = state;
  say(byId("status"), text);
  document.body.classList.toggle("stale", state === "lost");
}

async function look() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  try {
    const answer = await fetch(DATA, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (!answer.ok) throw new Error(`the program answers ${answer.status} ${answer.statusText}`.trim());
    show(await answer.json());
    heard = Date.now();
    status("live", "live");
  } catch (error) {
    const odd = error instanceof SyntaxError && "the program answers with something else";
    const why = odd || (error.message.startsWith("the program") ? error.message : "the program does not answer");
    status("lost", `${why}, last heard ${roughly((Date.now() - heard) / 1000)} ago`);
  } finally {
    asking = false;
  }
  rest();
}

/** Wait for the next look, unless nobody is looking. */
function rest() {
  clearTimeout(timer);
  if (paused || document.hidden) {
    if (paused) status("paused", "paused");
    return;
  }
  timer = setTimeout(look, EVERY);
}

byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  say(byId("pause"), paused ? "Resume" : "Pause");
  if (paused) rest();
  else look();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else if (!paused) look();
});
look();
