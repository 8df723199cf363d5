// What Grafana's own code makes of the boards: `node checks.mjs BOARD.json ...`. Fails with the first thing that is wrong.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';

import { config } from '@grafana/runtime';
import { PrometheusDatasource } from 'inner:datasource.mjs';
import { decodePromQLStringLiteral, interpolateQueryExpr } from 'inner:escaping.mjs';

// Names of pools, and what they must not match: as a regular expression, a dot is any character, and c++.db is none.
const NAMES = { 'app.db': 'app-db', 'c++.db': 'ccc.db', 'notes (copy).db': 'notes copy.db', 'db.db/write': 'dbxdb/write', 'a|b.db': 'a', "it's.db": 'its.db' };

const panelsOf = (board) => board.panels.flatMap((panel) => (panel.type === 'row' ? panel.panels : [panel]));

/** A variable's value in a matcher of a regular expression finds the label of exactly this value. */
function checkInterpolation(where, variable) {
  for (const [name, other] of Object.entries(NAMES)) {
    const interpolated = interpolateQueryExpr(variable.multi ? [name] : name, variable);
    const pattern = decodePromQLStringLiteral(`"${interpolated}"`);
    assert.notEqual(pattern, undefined, `${where}: ${name} becomes "${interpolated}", which is no string of PromQL`);
    const matches = new RegExp(`^(?:${pattern})$`);
    assert.match(name, matches, `${where}: ${name} becomes ${interpolated}`);
    assert.doesNotMatch(other, matches, `${where}: ${name} becomes ${interpolated}`);
  }
  return Object.keys(NAMES).length;
}

/** Grafana asks for the exemplars of each query that is to have them, whether it knows the names of metrics yet or not. */
function checkExemplars(where, panel) {
  const wanted = panel.targets.filter((target) => target.exemplar);
  const names = wanted.flatMap((target) => target.expr.match(/\w+_bucket/g));
  for (const known of [[], names]) {
    const source = { languageProvider: { retrieveHistogramMetrics: () => known } };
    for (const target of wanted) {
      const asked = PrometheusDatasource.prototype.shouldRunExemplarQuery.call(source, target, panel);
      assert.ok(asked, `${where}: no exemplars for query ${target.refId}, ${target.legendFormat}`);
    }
  }
  return wanted.length;
}

let values = 0;
let queries = 0;
for (const file of process.argv.slice(2)) {
  const board = JSON.parse(readFileSync(file, 'utf8'));
  for (const variable of board.templating.list.filter(({ type }) => type === 'query')) {
    for (const strict of [false, true]) {
      config.featureToggles.prometheusSpecialCharsInLabelValues = strict;
      values += checkInterpolation(`${basename(file)}, $${variable.name}`, variable);
    }
  }
  for (const panel of panelsOf(board)) {
    queries += checkExemplars(`${basename(file)}, ${panel.title}`, panel);
  }
}
assert.ok(values > 0 && queries > 0, 'no variable or no query with exemplars was found');
console.log(`${values} values of variables and ${queries} queries with exemplars: as they should be`);
