# The dashboards in a folder of Grafana. Use it as a module:
#
#   module "aiosqlitepool" {
#     source = "./pack"
#   }
#
# Alerts and recording rules stay with Prometheus.
terraform {
  required_providers {
    grafana = {
      source  = "grafana/grafana"
      version = ">= 3.0"
    }
  }
}

variable "folder" {
  description = "The title of the folder."
  type        = string
  default     = "SQLite"
}

resource "grafana_folder" "aiosqlitepool" {
  title = var.folder
}

resource "grafana_dashboard" "aiosqlitepool" {
  for_each    = fileset("${path.module}/dashboards", "*.json")
  folder      = grafana_folder.aiosqlitepool.uid
  config_json = file("${path.module}/dashboards/${each.key}")
  overwrite   = true
}
