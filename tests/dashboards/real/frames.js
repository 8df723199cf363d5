// The answers to a panel's queries, as Grafana hands them to its components.
import {
  FieldType,
  applyFieldOverrides,
  cacheFieldDisplayNames,
  dateTime,
  toDataFrame,
  transformDataFrame,
} from '@grafana/data';

import { propertiesOf } from './registries.js';

/** What the board shows: of which server, when, and which choices. */
export function windowFrom(parameters) {
  const number = (name) => Number(parameters.get(name));
  const chosen = Object.fromEntries(['job', 'instance', 'pool'].map((name) => [name, parameters.get(name) ?? '.+']));
  return { server: parameters.get('server'), from: number('from'), to: number('to'), step: number('step'), rate: number('rate'), chosen };
}

export function timeRange({ from, to }) {
  const range = { from: dateTime(from * 1000), to: dateTime(to * 1000) };
  return { ...range, raw: range };
}

function interpolated(expr, { from, to, step, rate, chosen }) {
  const values = {
    __interval: `${step}s`, __range: `${to - from}s`, __range_s: `${to - from}`, __rate_interval: `${rate}s`, ...chosen,
  };
  return expr.replace(/\$\{?(\w+)\}?/g, (whole, name) => values[name] ?? whole);
}

async function ask(target, window) {
  const query = interpolated(target.expr, window);
  const { server, from, to, step } = window;
  const asked = target.instant ? { query, time: to } : { query, start: from, end: to, step };
  const path = target.instant ? 'query' : 'query_range';
  const response = await fetch(`${server}/api/v1/${path}?${new URLSearchParams(asked)}`);
  const answer = await response.json();
  if (answer.status !== 'success') {
    throw new Error(`${answer.error} in ${query}`);
  }
  return answer.data.result;
}

const legend = (format, labels) => format.replace(/\{\{(\w+)\}\}/g, (_, name) => labels[name] ?? '');

function curves(target, result) {
  return result.map(({ metric, value, values = [value] }) =>
    toDataFrame({
      refId: target.refId,
      fields: [
        { name: 'Time', type: FieldType.time, values: values.map(([at]) => at * 1000) },
        {
          name: 'Value',
          type: FieldType.number,
          labels: metric,
          config: { displayNameFromDS: legend(target.legendFormat, metric) },
          values: values.map(([, text]) => (Number.isFinite(Number(text)) ? Number(text) : null)),
        },
      ],
    })
  );
}

function table(target, result) {
  const names = [...new Set(result.flatMap(({ metric }) => Object.keys(metric)))];
  return [
    toDataFrame({
      refId: target.refId,
      fields: [
        { name: 'Time', type: FieldType.time, values: result.map(({ value: [at] }) => at * 1000) },
        ...names.map((name) => ({ name, type: FieldType.string, values: result.map(({ metric }) => metric[name] ?? '') })),
        { name: `Value #${target.refId}`, type: FieldType.number, values: result.map(({ value: [, text] }) => Number(text)) },
      ],
    }),
  ];
}

function transformed(panel, frames) {
  if (!panel.transformations?.length) {
    return frames;
  }
  return new Promise((resolve, reject) =>
    transformDataFrame(panel.transformations, frames, { interpolate: (text) => text }).subscribe({ next: resolve, error: reject })
  );
}

/** The frames of a panel that asks Prometheus. */
export async function framesOf(panel, window, theme) {
  const answers = await Promise.all(
    panel.targets.map(async (target) => (target.format === 'table' ? table : curves)(target, await ask(target, window)))
  );
  const frames = applyFieldOverrides({
    data: await transformed(panel, answers.flat()),
    fieldConfig: panel.fieldConfig,
    fieldConfigRegistry: propertiesOf(panel),
    replaceVariables: (text) => text,
    theme,
    timeZone: 'utc',
  });
  cacheFieldDisplayNames(frames);
  return frames;
}
