"""The page of a plan: made of a plan that the stages computed, whole, without network, and with text that stays text."""

from __future__ import annotations

import msgspec
import pytest
from tests.streams.engine.test_plan import CONTRACT, drawn, planned, played

from coordinator.cli.rules_report import write_report
from coordinator.infra.plan_files import PlanBasis, PlanFile
from coordinator.streams.contract import CrunchContract
from coordinator.streams.log.errors import OperatorError


@pytest.fixture(scope="module")
def log():
    return played()


def kept_plan(plan):
    made_on = PlanBasis(
        crunch_id="btc-up", contract_hash="a" * 64, feeds_offset=9, feeds_sha256="", holds_from_ms=None
    )
    return PlanFile(
        made_at_ms=1_700_000_000_000, made_on=made_on, contract="rules:<NEW>", contract_hash="b" * 64,
        values_set={"min_participation": 0.9}, plan=plan, seconds=1.25,
    )  # fmt: skip


def test_it_shows_the_terms_each_payment_that_differs_and_who_falls_out(log, tmp_path):
    plan = planned(log, CrunchContract(min_participation=0.9))
    path = write_report(kept_plan(plan), tmp_path / "report")
    page = path.read_text()
    assert path == tmp_path / "report" / "index.html"
    assert "what is paid changes" in page
    assert "<td>min_participation</td><td>0.0</td><td>0.9</td>" in page
    assert "min_participation is 0.9" in page
    assert page.count("old share") == sum(period.differs for period in plan.periods)
    assert "rules:&lt;NEW&gt;" in page
    assert "rules:<NEW>" not in page
    assert 'src="http' not in page
    assert "<link" not in page


def test_a_model_that_is_called_like_markup_stays_text(log, tmp_path):
    plan = planned(log, drawn(1))
    name = "<img src=x onerror=alert(1)>"
    models = [msgspec.structs.replace(model, model_id=name) for model in plan.periods[0].models]
    periods = [msgspec.structs.replace(plan.periods[0], models=models, differs=True)]
    page = write_report(
        kept_plan(msgspec.structs.replace(plan, periods=periods)), tmp_path / "plan.html"
    ).read_text()
    assert "<img src=x" not in page.replace("\\u003cimg", "")


def test_the_same_rules_and_a_place_that_cannot_be_written(log, tmp_path):
    plan = planned(log, CONTRACT)
    assert "nothing changes" in write_report(kept_plan(plan), tmp_path / "same.htm").read_text()
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError, match=r"--report .*file"):
        write_report(kept_plan(plan), tmp_path / "file")
