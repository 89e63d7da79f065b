"""Names are looked for in another process, within a deadline, and what is late is dealt with as the operator says."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from plugins.redact import Redact
from proxy.redaction.schema import RedactionSchema
from proxy.testing import Rig, configured

PATIENCE_S = 60.0


class Analyzer:
    """Has presidio's interface, and knows two names; a text that asks for it takes its time."""

    def analyze(self, text, language, entities):
        if "slowly" in text:
            time.sleep(5)
        known = {"Ada Lovelace": "PERSON", "London": "LOCATION", "Acme": "ORGANIZATION"}
        return [
            SimpleNamespace(start=text.index(name), end=text.index(name) + len(name), entity_type=entity, score=0.9)
            for name, entity in known.items()
            if name in text and entity in entities
        ]


def engine(language):
    return Analyzer()


def rig_with(**options):
    names = {"engine": f"{__name__}:engine", "deadline_s": PATIENCE_S, **options}
    return Rig(configured(Redact, names=names))


def echo(body):
    return body["messages"][-1]["content"]


def test_names_go_up_as_placeholders_and_come_back(monkeypatch):
    with rig_with(kinds=["person", "place"]) as rig:
        result = rig.run("Ada Lovelace of Acme, London, is ada@example.com", echo, stream=True)
        up = result.upstream_body["messages"][0]["content"]
    assert up.startswith("[PERSON_") and " of Acme, [PLACE_" in up and "[EMAIL_" in up
    assert result.text == "Ada Lovelace of Acme, London, is ada@example.com"
    assert result.exchange.findings == {"person.request": 1, "place.request": 1, "email.request": 1}


@pytest.mark.parametrize(("late", "status"), [("block", 503), ("pass", 200)])
def test_what_is_late_is_refused_or_passed_as_configured(late, status):
    with rig_with(deadline_s=0.1, late=late) as rig:
        result = rig.run("Ada Lovelace said it slowly, to ada@example.com", echo)
    assert result.status == status
    if status == 503:
        assert result.error["code"] == "redaction_late" and result.sent == []
    else:
        assert "Ada Lovelace" in echo(result.upstream_body) and "[EMAIL_" in echo(result.upstream_body)


def test_an_engine_that_cannot_be_loaded_counts_as_late():
    with rig_with(engine="no.such.module:engine") as rig:
        assert rig.run("Ada Lovelace").status == 503


def test_names_have_no_action_for_answers():
    names = {"engine": f"{__name__}:engine"}
    assert "response" in RedactionSchema().validate({"names": names, "response": {"person": "mask"}})


def test_an_extra_that_is_missing_is_named_at_start(monkeypatch):
    monkeypatch.setattr("proxy.redaction.schema.find_spec", lambda name: None)
    problems = RedactionSchema().validate({"names": {}})
    assert problems["names"]["engine"] == ["needs presidio: pip install 'lockgate[presidio]'"]
