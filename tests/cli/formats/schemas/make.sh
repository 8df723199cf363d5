#!/usr/bin/env bash
# Makes kubernetes.json, the JSON Schemas of `kubernetes.ts`, from published types of custom resources. Needs node, npm.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
there=$(mktemp -d)
trap 'rm -rf "$there"' EXIT
cd "$there"
cp "$here/kubernetes.ts" .
cat > tsconfig.json <<'JSON'
{ "compilerOptions": { "module": "esnext", "moduleResolution": "bundler", "target": "es2022", "skipLibCheck": true }, "files": ["kubernetes.ts"] }
JSON
npm install --silent --no-package-lock ts-json-schema-generator@2.10.0 kubernetes-models@5.1.0 \
    @kubernetes-models/prometheus-operator@6.0.0 @kubernetes-models/grafana-operator@3.0.0
npx ts-json-schema-generator --path kubernetes.ts --tsconfig tsconfig.json --type '*' --jsDoc none --no-type-check \
    --minify --out "$here/kubernetes.json"
