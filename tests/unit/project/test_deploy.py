"""What lies under deploy/ is whole: the bridge's file loads, what is mounted is there, panels ask for real metrics.

Helm's own SDK lints and renders the chart, and every rendered resource is checked against Kubernetes' schemas, where
the extra `deploy` is installed (`.ci/deploy`). Nothing here is started: that needs docker, or a cluster.
"""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloud_bridge.config import BridgeConfig
from cloud_bridge.inference import ray_serve
from tests.support.api_server import Api
from tests.support.bridge_factory import DEVICE
from tests.support.services import ROOT
from wire.protocol.topics import TOPICS

COMPOSE, CHART = ROOT / "deploy" / "compose", ROOT / "deploy" / "helm" / "veilsight"
VALUES: dict[str, Any] = {
    "cameras": [{"site": "ward-3", "camera": "corridor", "public_key": DEVICE.public.hex}],
    "alerts": {"raise_at": 0.8, "quiet": ["22:00-06:00 info warning"]},
    "commands": True,
    "shards": 4,
    "extraConfig": '[[webhooks]]\nurl = "https://example.org/hook"\nsecret_file = "/s"',
}
KUBERNETES = "1.33"


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    return found


def test_what_compose_mounts_is_there_or_made_by_prepare() -> None:
    made = (COMPOSE / "prepare").read_text()
    document = compose()
    mounts = [volume for service in document["services"].values() for volume in service.get("volumes", [])]
    files = [volume.split(":")[0] for volume in mounts] + [each["file"] for each in document["secrets"].values()]
    for file in files:
        if file.startswith("./secrets/"):
            assert file.removeprefix("./").split("/")[1] in made, file
        elif file.startswith("."):
            assert (COMPOSE / file).is_file(), file
        else:
            assert file in document["volumes"], file


def test_compose_has_two_shards_and_a_spare_behind_nothing_open() -> None:
    services = compose()["services"]
    bridges = [name for name in services if name.startswith("bridge-")]
    assert len(bridges) == 3 and 'shard = "any/2"' in (COMPOSE / "bridge.toml").read_text()
    for name in bridges:
        assert services[name]["read_only"] and services[name]["cap_drop"] == ["ALL"]
    for name, service in services.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:") or name == "mosquitto", port
        image = service["image"]
        assert ":" in image or image in ("veilsight-bridge", "veilsight-member"), image
        assert not image.endswith(":latest")


def loaded(text: str, tmp_path: Path) -> BridgeConfig:
    """The file of a bridge, with its paths below a folder where every file is."""
    text = re.sub(r'"/(etc|opt|var)/', f'"{tmp_path}/\\1/', text)
    for path in re.findall(rf'"({tmp_path}[^"]+)"', text):
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".pub":
            file.write_text(DEVICE.public.hex + "\n")
        elif not file.is_dir():
            file.touch()
    return BridgeConfig.parse(tomllib.loads(text))


def test_the_bridge_of_compose_has_a_file_that_loads(tmp_path: Path) -> None:
    config = loaded((COMPOSE / "bridge.toml").read_text(), tmp_path)
    assert config.run.place.of == 2 and config.run.place.fenced and config.broker.tls
    assert config.api.cert and config.store.password_file and not config.broker.url.count("@")


def test_the_member_on_ray_is_asked_under_the_name_that_it_has(tmp_path: Path) -> None:
    """Its lines in the bridge's file, without their comment signs; what the service is started with."""
    text = re.sub(r"^# (member)", r"\1", (COMPOSE / "bridge.toml").read_text(), flags=re.MULTILINE)
    config = loaded(text, tmp_path)
    service = compose()["services"]["ray"]
    options = ray_serve.parser().parse_args(service["command"].split())
    assert config.model.member_url == f"https://ray:{options.port}/" and config.model.member_ca
    assert options.checkpoint == Path("/opt/veilsight/model/checkpoint") and options.cert and options.key
    assert service["entrypoint"][2] == ray_serve.__name__ and "ports" not in service and service["read_only"]
    assert "secrets/ray/ray ray DNS:ray" in (COMPOSE / "prepare").read_text()
    assert "ray" in service["build"]["args"]["EXTRAS"].split(",")
    assert "ARG EXTRAS=cloud" in (ROOT / "deploy" / "Dockerfile").read_text()


def test_the_access_list_names_the_topics_that_there_are() -> None:
    named = set(re.findall(r"veilsight/v1/(?:%u|\+/\+|bridges/\+)/(\S+)", (CHART / "files/mosquitto.acl").read_text()))
    assert named - {"contour"} == TOPICS.keys() - {"contour"}


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Api(tmp_path_factory.mktemp("api")) as api:
        api.fall()
        api.harness.bridge.look()
        yield api.ask("/metrics").text


def test_panels_and_rules_ask_for_metrics_that_there_are(metrics: str) -> None:
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = yaml.safe_load((CHART / "files" / "alert-rules.yml").read_text())
    asked += [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", metrics, re.MULTILINE))
    there = {
        f"{name}{part}"
        for name, kind in kinds.items()
        for part in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
    }
    assert {found for text in asked for found in re.findall(r"veilsight_bridge_\w+", text)} <= there
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]) == 14
    places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    tiles = [(column, row) for x, y, w, h in places for column in range(x, x + w) for row in range(y, y + h)]
    assert len(set(tiles)) == len(tiles) and max(column for column, _ in tiles) < 24  # none covers another


def test_prometheus_watches_every_bridge() -> None:
    config = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())
    (targets,) = [each["targets"] for job in config["scrape_configs"] for each in job["static_configs"]]
    bridges = [name for name in compose()["services"] if name.startswith("bridge-")]
    assert targets == [f"{name}:8443" for name in bridges]
    assert all(f"DNS:{name}" in (COMPOSE / "prepare").read_text() for name in bridges)


def test_prepare_is_a_script() -> None:
    subprocess.run(["bash", "-n", str(COMPOSE / "prepare")], check=True)
    assert "deploy/compose/secrets/" in (ROOT / ".gitignore").read_text().split()


# --- the chart


def rendered(**values: Any) -> list[dict[str, Any]]:
    """Every resource of the chart, rendered by Helm's own SDK."""
    helm = pytest.importorskip("helm_python", reason="pip install '.[deploy]'")
    with helm.Chart.load(str(CHART)) as chart:
        texts = chart.render({**VALUES, **values}, name="demo", namespace="prod")
    return [each for text in texts.values() for each in yaml.safe_load_all(text) if each]


def test_the_chart_lints() -> None:
    helm = pytest.importorskip("helm_python", reason="pip install '.[deploy]'")
    found = helm.lint(str(CHART), values=VALUES)
    assert found["total_charts_linted"] == 1 and found["errors"] == []
    assert [each["error"] for each in found["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("more", [{}, {"grafana": {"enabled": False}}, {"commands": False, "alerts": {}}])
def test_every_resource_is_as_kubernetes_wants_it(more: dict[str, Any]) -> None:
    check = pytest.importorskip("kubernetes_validate", reason="pip install '.[deploy]'")
    resources = rendered(**more)
    for each in resources:
        check.validate(each, KUBERNETES, strict=True)
    kinds = [each["kind"] for each in resources]
    assert kinds.count("StatefulSet") == 4 and kinds.count("Deployment") == ("grafana" not in more)
    with pytest.raises(Exception, match="Additional properties|additional"):
        check.validate({**resources[0], "spek": 1}, KUBERNETES, strict=True)


def test_the_bridge_of_the_chart_has_a_file_that_loads(tmp_path: Path) -> None:
    (text,) = [each["data"]["bridge.toml"] for each in rendered() if "bridge.toml" in each.get("data", {})]
    (tmp_path / "s").touch()
    config = loaded(text.replace('"/s"', f'"{tmp_path}/s"'), tmp_path)
    assert (config.run.place.of, config.alerts.raise_at, len(config.webhooks)) == (4, 0.8, 1)
    assert config.commands.operator_key.endswith("operator.key") and config.cameras[0].name == "ward-3/corridor"
    (bridge,) = [each for each in rendered() if each["kind"] == "StatefulSet" and "bridge" in each["metadata"]["name"]]
    assert bridge["spec"]["replicas"] == 4


def test_no_pod_may_more_than_it_needs() -> None:
    for each in rendered():
        if each["kind"] not in ("StatefulSet", "Deployment"):
            continue
        pod = each["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["automountServiceAccountToken"] is False
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}


def test_a_chart_without_cameras_says_so() -> None:
    with pytest.raises(Exception, match="name each with site, camera and public_key"):
        rendered(cameras=[])


def test_the_rules_count_the_shards_that_there_are() -> None:
    (text,) = [each["data"]["alert-rules.yml"] for each in rendered() if "alert-rules.yml" in each.get("data", {})]
    assert "count(veilsight_bridge_place) < 4 or" in text


def test_the_image_copies_what_its_context_has() -> None:
    lines = [line.split() for line in (ROOT / "deploy" / "Dockerfile").read_text().splitlines()]
    copied = {name for line in lines if line[:1] == ["COPY"] and "--from=made" not in line for name in line[1:-1]}
    let_in = {
        line[1:] for line in (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied if not name.startswith("build/"))
