// One pool's part of the page. Knows what `data.json` says of a pool, nothing of how it comes here.

import { copy, say, sync } from "./dom.js";
import { StatementsView } from "./statements.js";
import { tabs } from "./tabs.js";
import { clock, cut, duration, number, plural, roughly, share } from "./words.js";

const SPANS = [60, 300]; // s that the charts show: at first, and at most
const GAP = 10; // s without a look that break a line
const SETTLED = 0.25; // s held below which a cell shows no age: it would only flicker
const QUEUE = 12; // waiters listed
const SHORT = 80; // characters of a statement in a tip

/** One pool, and what this page has seen of it. */
export class PoolView {
  /** `asksFor` is called when the page shows something of which the last answer had nothing. */
  constructor(asksFor) {
    this.node = copy("pool");
    this.part = this.node.part_;
    const { part } = this;
    this.statements = new StatementsView(part);
    this.wantsStatements = false;
    tabs(
      { now: part["tab-now"], statements: part["tab-statements"] },
      { now: part["panel-now"], statements: part["panel-statements"] },
      (key) => {
        this.wantsStatements = key === "statements";
        if (this.wantsStatements) asksFor();
      },
    );
    this.history = []; // oldest first: {at, used, waiting, acquires}, what each look found
    this.unwanted = new Set(); // names of events that are not listed
  }

  show(pool, at) {
    const { part } = this;
    if (!this.history.length) this.history = before(pool.recent, at);
    const previous = this.history.at(-1);
    this.history.push({ at, used: pool.used, waiting: pool.waiting, acquires: pool.acquires });
    while (this.history[0].at < at - SPANS[1] - GAP) this.history.shift();
    this.name = pool.pool;
    say(part.name, pool.pool);
    say(part.state, pool.state);
    part.state.dataset.state = pool.state;
    say(part.sizes, sizes(pool));
    this.showSlots(pool);
    this.showTiles(pool, previous?.acquires && rates(previous, this.history.at(-1)));
    this.showChart("used", pool.max_size, at);
    this.showChart("waiting", Math.max(4, ...this.history.map((point) => point.waiting)), at);
    this.showPeople(pool);
    this.showTimes(pool);
    this.showEvents(pool);
    this.statements.show(pool, at);
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
      node.classList.toggle("suspected", Boolean(holder?.suspected));
      node.classList.toggle("right", index >= cells.length / 2);
      node.tabIndex = holder ? 0 : -1;
      say(part.who, holder ? nameOf(holder) : "");
      say(part.age, holder && holder.held >= SETTLED ? duration(holder.held) : "");
      const about = holder
        ? `connection ${holder.connection}\n${holder.label ?? "no label"}\n${holder.task}\nheld for ${duration(holder.held)}${holder.suspected ? ", a suspected leak" : ""}${waitsFor(holder, "\n")}${hasEnded(holder, "\n")}${statementIn(holder)}`
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
    const oldest = pool.waiting ? `oldest for ${duration(pool.oldest_waiter)}` : "no caller waits";
    tile("waiting", number(pool.waiting), oldest, pool.waiting ? "warn" : "");
    tile("wait", waits.count ? duration(waits.p99) : "–", waits.count ? (waits.p50 ? `half within ${duration(waits.p50)}` : "half at once") : "none in the last minute");
    tile("held", uses.count ? duration(uses.p99) : "–", pool.holders.length ? `longest now ${duration(pool.oldest_checkout)}` : "none in use");
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
      say(parts.label, nameOf(who));
      say(parts.task, `${nameOf(who) === who.task ? "" : who.task}${waitsFor(who, " ")}${hasEnded(who, " ")}`);
      say(parts.time, duration(seconds));
      parts.bar.style.setProperty("--share", share(seconds).toFixed(3));
    };
    sync(part.holders, pool.holders, "row", (holder) => holder.connection, (node, parts, holder) => {
      row(parts, holder, `#${holder.connection}`, holder.held);
      node.classList.toggle("suspected", holder.suspected);
      parts.suspected.hidden = !holder.suspected;
      parts.sql.hidden = !holder.statement;
      parts.sql.dataset.state = holder.statement_runs ? "runs" : "ran";
      say(parts.runs, holder.statement ? `${runs(holder)} ` : "");
      say(parts.statement, holder.statement ?? "");
      showStack(parts, holder.stack ?? []);
    });
    sync(part.waiters, pool.waiters.slice(0, QUEUE), "row", (_, index) => index, (node, parts, waiter, index) =>
      row(parts, waiter, `${index + 1}.`, waiter.waited));
    part["no-holders"].hidden = pool.holders.length > 0;
    part["no-waiters"].hidden = pool.waiters.length > 0;
    say(part["queue-more"], pool.waiting > QUEUE ? `the first ${QUEUE} of ${number(pool.waiting)}` : "");
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

/** The label, or the coroutine, or the task. */
const nameOf = (who) => who.label ?? who.coroutine ?? who.task;
const runs = (holder) => `${holder.statement_runs ? "runs" : "ran"} for ${duration(holder.statement_time)}:`;
const statementIn = (holder) => (holder.statement ? `\n${runs(holder)} ${cut(holder.statement, SHORT)}` : "");
const waitsFor = (who, before) => (who.waits_for ? `${before}waits for ${who.waits_for}` : "");
const hasEnded = (who, before) => (who.ended ? `${before}its task has ended` : "");

function sizes(pool) {
  const errors = pool.subscriber_errors ? `; ${plural(pool.subscriber_errors, "error")} in handlers of its events` : "";
  const limits = pool.min_size ? `${pool.min_size} to ${pool.max_size}` : `up to ${pool.max_size}`;
  return `${plural(pool.size, "connection")}, ${limits} allowed${errors}`;
}

/** What the program knows of the minute before this page was opened: the mean of each second, without acquires. */
const before = ({ ago, used, waiting }, at) =>
  used.map((level, index) => ({ at: at - ago - (used.length - 1 - index), used: level, waiting: waiting[index] }));

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
  say(parts.where, spot(stack.findLast((line) => line.own) ?? stack.at(-1)));
  sync(parts.stack, stack, "line", (_, index) => index, (node, part, line) => {
    say(part.at, spot(line));
    say(part.code, line.code);
  });
}
