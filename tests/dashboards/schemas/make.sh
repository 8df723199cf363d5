#!/usr/bin/env bash
# Makes grafana.json, the JSON Schemas of `grafana.ts`, from the types that Grafana publishes. Needs node and npm.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
there=$(mktemp -d)
trap 'rm -rf "$there"' EXIT
cd "$there"
cp "$here/grafana.ts" .
cat > tsconfig.json <<'JSON'
{ "compilerOptions": { "module": "esnext", "moduleResolution": "bundler", "target": "es2022", "skipLibCheck": true }, "files": ["grafana.ts"] }
JSON
npm install --silent --no-package-lock @grafana/schema@13.2.3 ts-json-schema-generator@2.10.0
npx ts-json-schema-generator --path grafana.ts --tsconfig tsconfig.json --type '*' --jsDoc none --no-type-check --minify \
    --out "$here/grafana.json"
