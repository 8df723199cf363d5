"""The example service watched by Debian's Prometheus and Alertmanager, without containers: `make stack-local`."""
