"""Several runs, and a comparison, on one page."""

import dataclasses
import json
import math
import re
import shutil

import pytest
import yaml

import fpo
from fpo.curves import read_log
from fpo.reporting.page import _verdict_line, run_page
from fpo.reporting.several import _edge
from fpo_core.errors import ConfigError


@pytest.fixture(scope="module")
def second(folder, settings):
    return fpo.train(
        **settings | {"alpha": 0, "iters": 3, "report": False}, output=folder / "plain"
    )


@pytest.fixture(scope="module")
def bare(folder, settings):
    """A run without an autoencoder."""
    without = {k: v for k, v in settings.items() if k not in ("sae", "normalize_d")}
    return fpo.train(**without | {"objective": "dpo", "iters": 2}, output=folder / "bare")


def test_a_run_without_an_autoencoder_has_no_features(show, bare):
    seen = show(bare.report)
    assert seen.messages == []
    assert seen.page.locator("#pair-list details").count() == 12
    assert seen.page.locator("#features").count() == 0


@pytest.fixture(scope="module")
def comparison(folder, settings):
    """Two objectives by a few steps each."""
    shared = {k: str(v) if k in ("model", "data", "sae") else v for k, v in settings.items()}
    shared |= {"iters": 2}
    file = folder / "compare.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in shared.items() if k != "backend"}))
    return fpo.compare(
        settings=file,
        output=folder / "compare",
        objectives=("fpo", "simpo"),
        eval_pairs=8,
        samples=0,
        backend="torch",
        sink=lambda _: None,
    )


def test_a_run_without_a_report_leaves_none(second):
    assert second.report is None
    assert not (second.output / "report.html").exists()
    assert not (second.output / "report.json").exists()


def test_runs_side_by_side(show, run, second, folder):
    report = fpo.report(runs=[run.output, second.output], output=folder / "both.html")
    seen = show(report.file)
    page = seen.page
    assert seen.messages == []
    assert seen.requests == [f"file://{report.file}"]
    differing = page.locator("#settings tbody th").all_text_contents()
    assert {"alpha", "iters"} <= {*differing}
    assert "output" not in differing
    names = page.locator("#runs tbody th").all_text_contents()
    assert names == ["start", "run", "plain"]
    button = page.locator("#runs thead button").nth(1)
    button.click()
    values = [
        float(cell.get_attribute("data-value"))
        for cell in page.locator("#runs tbody tr > *:nth-child(2)").all()
        if cell.get_attribute("data-value")
    ]
    assert values == sorted(values, reverse=True)


def test_a_comparison_leaves_its_page(show, comparison):
    assert comparison.report == comparison.output / "report.html"
    page = show(comparison.report).page
    titles = page.locator("figcaption b").all_text_contents()
    assert titles[0] == "Raw accuracy against KL"
    dots = page.locator("#frontier circle")
    assert dots.count() == 3  # the start and two runs
    chart = page.locator("#frontier svg").first
    chart.focus()
    page.keyboard.press("ArrowRight")
    assert "KL, chosen" in page.locator("#frontier .tip").first.inner_text()
    assert fpo.report(runs=[comparison.output]).file == comparison.report


@pytest.mark.parametrize("width", [400, 1600])
def test_axe_has_no_serious_findings(show, comparison, width):
    from axe_playwright_python.sync_playwright import Axe

    seen = show(comparison.report, width)
    found = Axe().run(seen.page).response["violations"]
    grave = [v for v in found if v["impact"] in ("serious", "critical")]
    assert [(v["id"], v["nodes"][0]["html"][:120]) for v in grave] == []
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_frontier_holds_what_no_other_beats():
    points = [(2.0, 0.9), (1.0, 0.8), (1.5, 0.7), (0.0, 0.5), (2.0, 0.95), (3.0, 0.95)]
    assert _edge(points) == [(0.0, 0.5), (1.0, 0.8), (2.0, 0.95)]


def test_a_folder_that_is_no_run_is_refused(folder):
    with pytest.raises(fpo.ConfigError, match="is no folder, expected the output of training"):
        fpo.report(runs=[folder / "nothing"])
    with pytest.raises(fpo.ConfigError, match="holds no run"):
        fpo.report(runs=[folder])


def test_a_file_of_somebody_else_stays(folder, run):
    other = folder / "mine.html"
    other.write_text("<p>mine</p>")
    with pytest.raises(fpo.ConfigError, match="not written by this program"):
        fpo.report(runs=[run.output], output=other)
    assert other.read_text() == "<p>mine</p>"


def test_a_run_of_before_is_read_again(folder, run, tmp_path):
    """Without its record a run has curves, pairs and features all the same."""
    old = tmp_path / "old"
    shutil.copytree(run.output, old)
    (old / "report.json").unlink()
    page = fpo.report(runs=[old]).file.read_text()
    assert 'id="pair-list"' in page
    assert 'id="feature-table"' in page
    (old / "report.json").write_text(json.dumps({"format": "fpo-report", "version": 99}))
    with pytest.raises(fpo.ConfigError, match="version 99"):
        fpo.report(runs=[old])


def test_the_result_says_where(run):
    assert run.to_mapping()["report"] == str(run.report)
    assert dataclasses.replace(run, report=None).to_mapping()["report"] is None


@pytest.fixture
def interrupted(run, tmp_path):
    """What a run leaves that was stopped after its first validation."""
    folder = tmp_path / "interrupted"
    folder.mkdir()
    shutil.copy(run.output / "fpo_config.json", folder)
    lines = (run.output / "log.jsonl").read_text().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if json.loads(line)["kind"] == "eval")
    (folder / "log.jsonl").write_text("".join(lines[: first + 1]))
    return folder


def test_a_run_that_was_interrupted_stands_beside_another(run, interrupted, tmp_path):
    page = fpo.report(runs=[run.output, interrupted], output=tmp_path / "both.html").file
    assert ">interrupted</bdi>" in page.read_text()


def test_a_run_that_was_interrupted_has_its_curves(interrupted):
    notes = []
    page = fpo.report(runs=[interrupted], sink=notes.append).file.read_text()
    assert "holds no result yet" in notes[0].values["message"]
    assert "<b>Accuracy</b>" in page
    assert 'id="pair-list"' not in page


def test_the_judge_of_a_comparison_is_on_its_page(comparison, tmp_path):
    folder = tmp_path / "judged"
    shutil.copytree(comparison.output, folder)
    table = json.loads((folder / "compare.json").read_text())
    for number, run in enumerate(table["runs"]):
        run["metrics"] |= {"judge_score": 0.125 + number, "win_rate": 0.625}
    (folder / "compare.json").write_text(json.dumps(table))
    page = fpo.report(runs=[folder]).file.read_text()
    assert "<b>Judge&#39;s score of samples against KL</b>" in page
    assert '<button type="button">win rate</button>' in page
    assert 'data-value="1.125"' in page


@pytest.mark.parametrize("asked", [{"shown_pairs": 3}, {"shown_features": 3}, {"backend": "mlx"}])
def test_what_a_page_of_several_does_not_show_is_refused(run, comparison, asked):
    for runs in ([run.output, run.output], [comparison.output]):
        with pytest.raises(ConfigError, match="shows neither pairs nor features"):
            fpo.report(runs=runs, **asked)


def test_a_measurement_that_is_no_number_has_no_place_in_a_chart(run, comparison, tmp_path):
    record = json.loads((run.output / "report.json").read_text())
    record["after"] |= {"fpo/kl_chosen": math.inf, "fpo/kl_rejected": math.inf}
    assert "Sequential KL" not in titles(run_page(record, read_log(run.output / "log.jsonl")))
    folder = tmp_path / "infinite"
    shutil.copytree(comparison.output, folder)
    for file in folder.glob("runs/*/result.json"):
        result = json.loads(file.read_text())
        result["metrics"]["fpo/kl_chosen"] = math.inf
        file.write_text(json.dumps(result))
    page = fpo.report(runs=[folder]).file.read_text()
    assert not any("against KL" in title for title in titles(page))


def titles(page):
    return re.findall("<figcaption><b>(.*?)</b>", page)


@pytest.mark.parametrize(
    ("line", "mood"),
    [
        ("Drifted? within bounds: KL 1 chosen, 1 rejected.", "good"),
        ("Drifted? broken: general questions right 9 → 2 of 10.", "bad"),
        ("Constraint active? yes: its gradient is 0.3 of the preference's.", "good"),
        ("Constraint active? yes, it outweighs the preference: its gradient is 3.", "warn"),
    ],
)
def test_a_line_of_the_verdict_has_its_colour(line, mood):
    assert _verdict_line(line)["mood"] == mood
