// Bundles the page and the checks: `node bundle.mjs NODE_MODULES OUT`.
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const [modules, out] = process.argv.slice(2).map((path) => resolve(path));
const { build } = createRequire(join(modules, 'index.js'))('esbuild');
const here = dirname(fileURLToPath(import.meta.url));

// Stands for everything that a module imports and that is not run: it can be called, extended and read.
const ANYTHING = `
  const anything = new Proxy(class {}, {
    get: (target, name) => name === Symbol.toPrimitive ? () => '' : name === 'prototype' ? target.prototype : anything,
    apply: () => anything,
  });
  const config = { featureToggles: {} };
  // The prototype has the names: esbuild copies the exports, and keeps that. They are the default export, too.
  module.exports = Object.setPrototypeOf(function () { return anything; }, new Proxy({}, {
    get: (_, name) => name === 'config' ? config : anything,
  }));`;

/** Replaces the packages that `replaced` says by nothing. */
const without = (replaced) => ({
  name: 'without',
  setup(bundling) {
    bundling.onResolve({ filter: /^[^./]/ }, ({ path, kind }) =>
      kind !== 'entry-point' && replaced(path) ? { path, namespace: 'without' } : undefined
    );
    bundling.onLoad({ filter: /.*/, namespace: 'without' }, () => ({ contents: ANYTHING, loader: 'js' }));
  },
});

/** Finds modules of `@grafana/prometheus` that the package does not export. */
const inner = {
  name: 'inner',
  setup(bundling) {
    bundling.onResolve({ filter: /^inner:/ }, ({ path }) => ({
      path: join(modules, '@grafana/prometheus/dist/esm', path.slice('inner:'.length)),
    }));
  },
};

const common = { bundle: true, logLevel: 'error', nodePaths: [modules], outdir: out };

await build({
  ...common,
  entryPoints: [join(here, 'board.jsx')],
  define: { 'process.env.NODE_ENV': '"production"', global: 'window' },
  jsx: 'automatic',
  loader: { '.eot': 'empty', '.png': 'empty', '.svg': 'dataurl', '.ttf': 'empty', '.woff': 'empty', '.woff2': 'empty' },
  minify: true,
  plugins: [without((path) => ['@grafana/assistant', '@grafana/runtime', 'path'].includes(path))],
});
await build({
  ...common,
  entryPoints: [join(here, 'checks.js')],
  format: 'esm',
  outExtension: { '.js': '.mjs' },
  platform: 'node',
  // The functions that are checked need nothing but their own package.
  plugins: [inner, without((path) => !path.startsWith('node:'))],
});
