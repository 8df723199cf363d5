// The objects of which make.sh makes JSON Schemas.
import type { IGrafanaDashboard } from "@kubernetes-models/grafana-operator/grafana.integreatly.org/v1beta1";
import type {
  IPodMonitor,
  IPrometheusRule,
  IServiceMonitor,
} from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
import type { IConfigMap } from "kubernetes-models/v1";

export type ConfigMap = IConfigMap;
export type GrafanaDashboard = IGrafanaDashboard;
export type PodMonitor = IPodMonitor;
export type PrometheusRule = IPrometheusRule;
export type ServiceMonitor = IServiceMonitor;
