"""What is published is what was measured."""

import json

from tests.chaos.publish import BEGIN, PAGE, RESULTS, page


def test_the_page_says_what_the_reports_say() -> None:
    report, baseline = (json.loads((RESULTS / name).read_text()) for name in ("chaos.json", "chaos_baseline.json"))
    text = PAGE.read_text()
    assert BEGIN in text
    assert page(text, report, baseline) == text


def test_the_published_run_struck_as_often_as_is_said_to_be_enough() -> None:
    report = json.loads((RESULTS / "chaos.json").read_text())
    struck = report["faults"]
    assert struck["kill"] + struck["kill child"] + struck["crash"] >= 300
    assert min(struck["freeze"], struck["ambiguous commit"]) >= 50
    assert min(struck["flush"], struck["restart"]) >= 20
    assert report["violations"] == []
    assert all(each["found"] for each in report["sabotages"])
