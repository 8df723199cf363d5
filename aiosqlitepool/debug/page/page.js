// The page: asks `data.json` every second, and shows what it says.
//
// Labels, task names, statements and messages may come from strangers. They are only ever set as text, never as markup, and the
// page's Content-Security-Policy would stop them otherwise.

import { byId, say } from "./dom.js";
import { PoolView } from "./pool.js";
import { roughly } from "./words.js";

const EVERY = 1000; // ms between two looks
const PATIENCE = 5000; // ms for an answer

// Without a name and password that the page's own address may have: fetch refuses those.
const DATA = new URL("data.json", location.origin + location.pathname);

const views = new Map(); // by name and number
let process; // the one that answered last
let heard = Date.now();
let paused = false;
let timer;
let asking = false;
let again = false; // what to ask has changed since

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
    if (!views.has(keys[index])) views.set(keys[index], new PoolView(look));
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

/** What to ask: the statements of a pool only while they are shown, they are many. */
function address() {
  const url = new URL(DATA);
  for (const view of views.values()) if (view.wantsStatements) url.searchParams.append("statements", view.name);
  return url;
}

async function look() {
  again = asking;
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  try {
    const answer = await fetch(address(), { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
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
  if (again) look();
  else rest();
}

/** Wait for the next look, unless the page is hidden. */
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
