"""The containers, as far as can be proved without an engine: the schema, what is mounted, who talks to whom."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

ROOT = Path(__file__).parent.parent
FILE = ROOT / "docker-compose.yml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())["services"]
DOCKERFILE = (ROOT / "examples" / "fastapi_service" / "Dockerfile").read_text()
PROVISIONING = ROOT / "dashboards" / "provisioning" / "datasources.yml"
# Where each program listens, as its own configuration says or as it does by default.
LISTENS = {
    "app": {8000}, "prometheus": {9090}, "alertmanager": {9093}, "tempo": {3200, 4318}, "loki": {3100},
    "grafana": {3000},
}  # fmt: skip
# Their images have no program that could check their health.
UNCHECKED = ("load", "tempo", "loki", "alloy")
# Built once, by the service `app`.
BUILT = "aiosqlitepool-example"

each_service = pytest.mark.parametrize("name", SERVICES)


def test_it_is_a_compose_file() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@each_service
def test_images_are_pinned(name: str) -> None:
    image = SERVICES[name]["image"]
    assert image == BUILT or re.search(r":v?\d+\.\d+\.\d+$", image), image
    assert re.search(r"^FROM python:\d+\.\d+\.\d+-", DOCKERFILE, re.MULTILINE)


def test_the_image_of_the_example_is_built_once() -> None:
    assert [name for name, service in SERVICES.items() if "build" in service] == ["app"]
    assert [name for name, service in SERVICES.items() if service["image"] == BUILT] == ["app", "load"]
    assert SERVICES["load"]["pull_policy"] == "never"
    assert SERVICES["load"]["depends_on"] == {"app": {"condition": "service_healthy"}}


def test_the_log_records_of_the_service_get_to_the_board_that_asks_loki_for_them() -> None:
    path = SERVICES["app"]["environment"]["LOG_FILE"]
    config = (ROOT / "examples" / "compose" / "config.alloy").read_text()
    (pattern,) = re.findall(r'"__path__" = "([^"]+)"', config)
    assert Path(path).match(pattern)
    assert "logs:/logs" in SERVICES["app"]["volumes"]
    assert "logs:/logs:ro" in SERVICES["alloy"]["volumes"]
    assert f'"service_name" = "{SERVICES["app"]["environment"]["OTEL_SERVICE_NAME"]}"' in config
    assert "loki" in {source["uid"] for source in yaml.safe_load(PROVISIONING.read_text())["datasources"]}


@each_service
def test_nothing_runs_as_root_or_can_become_it(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    user = re.findall(r"^USER (\w+)$", DOCKERFILE, re.MULTILINE)[-1] if service["image"] == BUILT else service["user"]
    assert user.partition(":")[0] not in ("root", "0")


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in UNCHECKED])
def test_its_health_is_checked_where_it_listens(name: str) -> None:
    check = SERVICES[name]["healthcheck"]["test"]
    (port,) = re.findall(r"http://127\.0\.0\.1:(\d+)/", " ".join(check))
    assert int(port) in LISTENS[name]


def test_only_grafana_and_the_service_are_published_and_on_loopback_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"app": ["127.0.0.1:8000:8000"], "grafana": ["127.0.0.1:3000:3000"]}


MOUNTS = [
    (name, *mount.split(":")[:2]) for name in SERVICES for mount in SERVICES[name].get("volumes", ()) if mount[0] == "."
]


@pytest.mark.parametrize(("name", "source", "target"), MOUNTS)
def test_what_is_mounted_exists_and_cannot_be_written(name: str, source: str, target: str) -> None:
    if source.startswith("./dashboards") and not (ROOT / "dashboards").exists():
        pytest.skip("no boards in this checkout")
    assert (ROOT / source).exists()
    assert f"{source}:{target}:ro" in SERVICES[name]["volumes"]


def test_named_volumes_are_those_that_are_used() -> None:
    used = {
        mount.partition(":")[0]
        for service in SERVICES.values()
        for mount in service.get("volumes", ())
        if mount[0] != "."
    }
    assert used == set(yaml.safe_load(FILE.read_text())["volumes"])


@pytest.mark.parametrize(
    ("name", "flag", "target"),
    [
        ("prometheus", "--config.file=", "/etc/prometheus/prometheus.yml"),
        ("alertmanager", "--config.file=", "/etc/alertmanager/alertmanager.yml"),
        ("tempo", "-config.file=", "/etc/tempo.yml"),
        ("alloy", "", "/etc/alloy/config.alloy"),
    ],
)
def test_each_program_is_given_a_configuration_that_is_mounted(name: str, flag: str, target: str) -> None:
    assert flag + target in SERVICES[name]["command"]
    sources = [(source, at) for service, source, at in MOUNTS if service == name and target.startswith(at)]
    (source, at) = sources[0]
    assert (ROOT / source / target.removeprefix(at).lstrip("/") if at != target else ROOT / source).is_file()


def test_prometheus_keeps_exemplars() -> None:
    assert "--enable-feature=exemplar-storage" in SERVICES["prometheus"]["command"]


def test_there_are_targets_for_every_list_of_targets() -> None:
    lists = {path.name for path in (ROOT / "metrics" / "targets").iterdir()}
    assert {path.name for path in (ROOT / "examples" / "compose" / "targets").iterdir()} == lists


def addresses() -> list[str]:
    """Every address by which one container is told of another."""
    found = [
        target
        for file in sorted((ROOT / "examples" / "compose" / "targets").iterdir())
        for each in yaml.safe_load(file.read_text())
        for target in each["targets"]
    ]
    told = " ".join(str(service.get(key)) for service in SERVICES.values() for key in ("command", "environment"))
    told += (ROOT / "examples" / "compose" / "config.alloy").read_text()
    if PROVISIONING.exists():
        told += PROVISIONING.read_text()
    return found + [urlsplit(url).netloc for url in re.findall(r"http://[a-z]+:\d+", told)]


@pytest.mark.parametrize("address", sorted(set(addresses())))
def test_every_address_is_a_service_at_a_port_where_it_listens(address: str) -> None:
    name, _, port = address.partition(":")
    assert int(port) in LISTENS[name]


def test_tempo_and_the_service_listen_where_they_are_said_to() -> None:
    tempo = yaml.safe_load((ROOT / "examples" / "compose" / "tempo.yml").read_text())
    receiver = tempo["distributor"]["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    assert {tempo["server"]["http_listen_port"], int(receiver.rpartition(":")[2])} == LISTENS["tempo"]
    assert '"--port", "8000"' in DOCKERFILE
    assert "EXPOSE 8000" in DOCKERFILE


def test_the_image_is_built_from_what_is_there_and_not_ignored() -> None:
    kept = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    copied = {source for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE) for source in line.split()}
    assert copied == kept
    assert {source for source in copied if not (ROOT / source).exists()} <= {"dashboards"}


@each_service
def test_what_it_depends_on_is_a_service_whose_health_is_checked(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        checked = "healthcheck" in SERVICES[other]
        assert how == {"condition": "service_healthy" if checked else "service_started"}
        assert checked == (other not in UNCHECKED)
