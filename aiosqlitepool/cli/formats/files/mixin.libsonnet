// The SRE pack as a Prometheus mixin. `alerts` overrides fields of alerts, by name; null removes an alert:
//
//   (import 'aiosqlitepool/mixin.libsonnet') + {
//     _config+:: {
//       alerts+: {
//         AiosqlitepoolWaitSlow: { 'for': '30m', labels+: { severity: 'info' } },
//         AiosqlitepoolChurn: null,
//       },
//     },
//   }
{
  _config+:: {
    alerts: {},
    folder: 'SQLite',
  },

  local overrides = $._config.alerts,
  local override(rule) = if std.objectHas(overrides, rule.alert) then overrides[rule.alert] else {},
  local groups(text) = std.parseYaml(text).groups,

  grafanaDashboardFolder:: $._config.folder,
  grafanaDashboards+:: {
    'aiosqlitepool-overview.json': import 'dashboards/overview.json',
    'aiosqlitepool-pool.json': import 'dashboards/pool.json',
  },
  prometheusRules+:: { groups+: groups(importstr 'rules.yml') },
  prometheusAlerts+:: {
    groups+: [
      group { rules: [rule + override(rule) for rule in group.rules if override(rule) != null] }
      for group in groups(importstr 'alerts.yml')
    ],
  },
}
