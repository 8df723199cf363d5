// The table of the statements of one pool. Knows what `data.json` says of them, nothing of how it comes here.

import { say, sync } from "./dom.js";
import { clock, duration, number, plural, roughly } from "./words.js";

const COUNTS = ["calls", "errors", "rows", "rows_changed", "inline"];
const TIMES = ["run_total", "run_mean", "run_max", "run_p99", "wait_total", "wait_mean", "wait_max", "wait_p99"];

const WARNING = "  <-- "; // in a line of a plan, before what makes it slow
const LISTED = 100; // rows at first; to update 500 of them takes a browser half a second

export class StatementsView {
  constructor(part) {
    this.part = part;
    this.sorted = { by: "run_total", descending: true };
    this.rows = []; // of the last answer that had them
    this.listed = LISTED;
    this.headings = [...part.statements.querySelectorAll("[data-sort]")];
    for (const heading of this.headings) {
      heading.querySelector("button").addEventListener("click", () => this.sort(heading.dataset.sort));
    }
    part["all-statements"].addEventListener("click", () => {
      this.listed = Infinity;
      this.fill();
    });
    const opened = ({ target }) => target.matches(".plan") && this.fill();
    part.statements.addEventListener("toggle", opened, true); // which does not bubble
    this.markHeading();
  }

  /** Show the statements of an answer; those of the answer before, if this one has none. */
  show(pool, at) {
    if (!pool.statements) return;
    this.rows = pool.statements;
    this.at = at;
    const forgotten = pool.statements_forgotten;
    const room = forgotten ? `; ${number(forgotten)} more, the least used, were forgotten to make room` : "";
    say(this.part["statements-about"], `${plural(this.rows.length, "statement")}${room}`);
    this.part["no-statements"].hidden = this.rows.length > 0;
    this.part["some-statements"].hidden = this.rows.length === 0;
    this.fill();
  }

  /** Numbers and times begin with the largest, texts with A; the same heading again turns the order round. */
  sort(by) {
    const again = this.sorted.by === by;
    this.sorted = { by, descending: again ? !this.sorted.descending : typeof this.rows[0]?.[by] === "number" };
    this.markHeading();
    this.fill(); // at once, also while the page is paused
  }

  markHeading() {
    for (const heading of this.headings) {
      const { by, descending } = this.sorted;
      if (heading.dataset.sort === by) heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
    }
  }

  fill() {
    const rows = inOrder(this.rows, this.sorted);
    const total = rows.reduce((sum, row) => sum + row.run_total, 0);
    this.part["all-statements"].hidden = rows.length <= this.listed;
    say(this.part["all-statements"], `Show the other ${number(rows.length - LISTED)} too`);
    sync(this.part.statements, rows.slice(0, this.listed), "statement", (row) => row.statement, (node, part, row) => {
      say(part.operation, row.operation);
      say(part.statement, row.statement);
      say(part.labels, row.labels.join(", "));
      for (const key of COUNTS) {
        say(part[key], number(row[key]));
        part[key].classList.toggle("zero", row[key] === 0);
      }
      for (const key of TIMES) say(part[key], duration(row[key]));
      part.errors.classList.toggle("bad", row.errors > 0);
      const share = total ? row.run_total / total : 0;
      say(part.share, `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`);
      part.bar.style.setProperty("--share", share.toFixed(3));
      const ago = this.at - row.last_seen;
      say(part.last_seen, ago < 1 ? "now" : `${roughly(ago)} ago`);
      part.last_seen.title = `${clock(row.last_seen)}, first at ${clock(row.first_seen)}`;
      showPlan(part, row.plan ?? []);
    });
  }
}

function inOrder(rows, { by, descending }) {
  const compare = (one, other) => (typeof one === "number" ? one - other : String(one).localeCompare(String(other)));
  const sign = descending ? -1 : 1;
  return [...rows].sort((one, other) => sign * compare(one[by], other[by]));
}

/** The plan, whose lines may end with what makes them slow; that is shown also while the plan is not open. */
function showPlan(part, plan) {
  const lines = plan.map((line) => line.split(WARNING));
  const warnings = [...new Set(lines.flatMap(([, ...warning]) => warning))];
  const index = (_, at) => at;
  part["plan-row"].hidden = plan.length === 0;
  sync(part.warnings, warnings, "warning", index, (node, _, warning) => say(node, warning));
  sync(part.plan, part.details.open ? lines : [], "plan", index, (node, parts, [step, warning]) => {
    say(parts.step, step);
    say(parts.warning, warning ?? "");
    parts.warning.hidden = !warning;
  });
}
