"""The rules for Prometheus name metrics that there are."""

import re
from pathlib import Path

import yaml
from prometheus_client import REGISTRY

from notifier import reconciling, worker  # declare the metrics

RULES = Path(__file__).parents[3] / "deploy" / "prometheus" / "notifier.yml"


def test_every_metric_of_the_rules_is_measured() -> None:
    assert reconciling.UNACCOUNTED
    assert worker.DEAD
    known = {sample.name for family in REGISTRY.collect() for sample in family.samples}
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]:
        named = set(re.findall(r"\bhallmark_\w+", rule["expr"]))
        assert named, rule["alert"]
        assert named <= known, rule["alert"]
        assert {"summary", "description"} == set(rule["annotations"])
