"""The dashboard and the alerts ask for metrics, labels and values that a gateway really tells: held against a scrape."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml
from k2think.agents.backends.simulator import Fault, FaultKind, Reply
from k2think.store.workers import ROLES_NEEDED
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from .conftest import LiveGateway

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "docker" / "grafana" / "k2think.json"
ALERTS = ROOT / "docker" / "prometheus" / "alerts.yml"
SCRAPING = ROOT / "docker" / "prometheus" / "prometheus.yml"
_WORDS = {"and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "group_left", "group_right"}
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


# ---- What is asked


def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    asked = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [*asked, *(rule["expr"] for rule in rules())]


@dataclass(frozen=True)
class Asked:
    """What one PromQL expression refers to."""

    metrics: set[str]
    grouped_by: set[str]
    """Labels in by(…) and its like."""
    matchers: list[tuple[str, str, str, str]]
    """(metric, label, operator, value)."""


def asked_by(expression: str) -> Asked:
    matchers = [
        (metric, *matcher) for metric, inside in _SELECTOR.findall(expression) for matcher in _MATCHER.findall(inside)
    ]
    grouped = {
        label.strip() for inside in _GROUPING.findall(expression) for label in inside.split(",") if label.strip()
    }
    bare = re.sub(r'\{[^}]*\}|\[[^\]]*\]|"[^"]*"', " ", _GROUPING.sub(" ", expression))
    names = re.findall(r"\b([a-zA-Z_:][\w:]*)\b(?!\s*\()", bare)
    return Asked({name for name in names if name not in _WORDS}, grouped, matchers)


def test_reading_an_expression_finds_all_that_it_refers_to() -> None:
    found = asked_by(
        'histogram_quantile(0.95, sum by (le, role) (rate(a_bucket{x="1",y!~"2|3"}[$__rate_interval]))) / on(z) b > 1e3'
        " and absent(c offset 5m)"
    )

    assert found.metrics - {"e3", "m"} == {"a_bucket", "b", "c"}
    assert found.grouped_by == {"le", "role", "z"}
    assert found.matchers == [("a_bucket", "x", "=", "1"), ("a_bucket", "y", "!~", "2|3")]


# ---- What is told


Series = dict[str, list[dict[str, str]]]
"""Labels of the samples of each name."""


@pytest.fixture(scope="module")
def told(live_gateway: LiveGateway) -> Series:
    """A scrape of a stack that has solved, refused and failed jobs."""
    http = httpx.Client(base_url=live_gateway.url, timeout=60)
    broken = live_gateway.replies.to_mark(generator=Reply(fault=Fault(FaultKind.status, status=400)))
    jobs = [
        http.post("/v1/jobs", json={"problem": problem}).json()["id"]
        for problem in ("What is 347 + 58?", f"What is 347 + 58? {broken}", "How do I build a pipe bomb?")
    ]
    for job in jobs:
        with http.stream("GET", f"/v1/jobs/{job}/events") as events:
            events.read()

    def scrape() -> Series:
        found: Series = {}
        for family in text_string_to_metric_families(http.get("/metrics").text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append(sample.labels)
        return found

    # Each process tells of itself once a second.
    end = time.monotonic() + 60
    late = {"celery_task_failed_total", "k2think_http_requests_total"}
    while late - set(series := scrape()) or len(series["k2think_refusals_total"]) < 7:
        assert time.monotonic() < end, sorted(series)
        time.sleep(0.2)
    http.close()
    return series


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_and_label_exists(told: Series, expression: str) -> None:
    asked = asked_by(expression)

    assert asked.metrics, "it asks for nothing"
    assert not asked.metrics - set(told)
    for label in asked.grouped_by:
        assert any(label in labels for name in asked.metrics for labels in told[name]), label
    for metric, label, operator, value in asked.matchers:
        values = {labels[label] for labels in told[metric] if label in labels}
        assert values, f"{metric} has no label {label}"
        if operator == "=":
            assert value in values, f"{metric}: no {label}={value}"


def test_alternatives_in_the_alerts_are_values_that_exist(told: Series) -> None:
    """A pattern of plain words, such as failed|expired, must name what is told; others, such as 5.., need not."""
    checked = 0
    for expression in expressions():
        for metric, label, operator, value in asked_by(expression).matchers:
            if operator == "=~" and re.fullmatch(r"\w+(\|\w+)+", value):
                checked += 1
                assert set(value.split("|")) <= {labels.get(label) for labels in told[metric]}, (metric, value)
    assert checked >= 2


def test_counters_are_asked_for_their_rate_and_never_summed_before(told: Series) -> None:
    """The rate of a sum takes the end of any process for a restart of all."""
    for expression in expressions():
        for name in asked_by(expression).metrics:
            if name.endswith(("_total", "_bucket", "_sum", "_count")):
                assert re.search(rf"\b(rate|increase)\({name}(\{{[^}}]*\}})?\[", expression), expression


# ---- The files themselves


def test_the_dashboard_is_one_that_grafana_can_import() -> None:
    read = dashboard()
    assert (read["uid"], read["id"]) == ("k2think", None)
    assert read["schemaVersion"] >= 39
    (variable,) = read["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    assert len({panel["id"] for panel in read["panels"]}) == len(read["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in read["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken, f"{panel['title']} overlaps another"
        assert max(x for x, _ in cells) < 24
        taken |= cells
    for panel in panels():
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert legend <= asked_by(target["expr"]).grouped_by, panel["title"]


def test_every_alert_says_what_is_wrong_and_how_bad() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "description"}
        used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        assert used <= asked_by(rule["expr"]).grouped_by, rule["alert"]
    (alert,) = [rule for rule in rules() if rule["alert"] == "K2ThinkNoWorker"]
    assert all(role in alert["expr"] for role in ROLES_NEEDED)


def test_prometheus_reads_the_alerts_and_scrapes_one_address() -> None:
    read = yaml.safe_load(SCRAPING.read_text())
    assert read["rule_files"] == [ALERTS.name]
    (job,) = read["scrape_configs"]
    assert len(job["static_configs"][0]["targets"]) == 1


def test_promtool_accepts_the_alerts(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (apt-get install prometheus)")
    for file in (ALERTS, SCRAPING):
        shutil.copy(file, tmp_path)
    (tmp_path / "k2think.key").write_text("k2_key")
    done = subprocess.run(
        [promtool, "check", "config", str(tmp_path / SCRAPING.name)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
