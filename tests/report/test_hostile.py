"""Hostile texts everywhere: nothing runs, nothing is fetched, and the layout stands."""

import copy
import json
import re
import shutil

import pytest

import fpo
from fpo.curves import read_log
from fpo.reporting.page import run_page
from fpo_cli.console.ui import Ui
from fpo_core.io.digests import sealed
from fpo_core.io.foreign_text import for_page

from .hostile import TEXTS
from .open_rows import drawn

ELEMENTS = "img, iframe, object, embed, link, base, form, video, template, svg script, math, base"


def poisoned(value, texts):
    """JSON values of the same shape, every text of them a hostile one."""
    if isinstance(value, str):
        return next(texts)
    if isinstance(value, dict):
        return {key: poisoned(item, texts) for key, item in value.items()}
    if isinstance(value, list):
        return [poisoned(item, texts) for item in value]
    return value


def forever():
    while True:
        yield from TEXTS


@pytest.fixture(scope="module")
def record(run):
    """A record whose every text is hostile, and whose vocabulary holds all of them."""
    record = json.loads((run.output / "report.json").read_text())
    sides = record["sides"]
    record = poisoned(record, forever())
    record["samples"] = [
        {"prompt": text, "sides": [{"name": text, "text": text, "score": text}]} for text in TEXTS
    ]
    for pair, text in zip(record["pairs"] * 9, TEXTS, strict=False):
        pair["prompt"] = text
    while len(record["vocabulary"]) < len(TEXTS):
        record["vocabulary"].append("")
    record["vocabulary"][: len(TEXTS)] = TEXTS
    record["pairs"][0]["chosen"] = {
        "tokens": list(range(len(TEXTS))),
        "before": [-1000] * len(TEXTS),
        "after": [-10] * len(TEXTS),
    }
    record["saes"][0]["neuronpedia"] = 'x/y"><script>window.hacked=1</script>'
    record["sides"] = sides
    return record


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_runs_and_nothing_breaks(show, run, record, tmp_path, width):
    file = tmp_path / "page.html"
    text = run_page(record, read_log(run.log))
    file.write_bytes(text.encode("utf-8", "replace"))
    seen = show(file, width)
    page = seen.page
    for details in page.locator("details").all():
        details.evaluate("element => { element.open = true }")
    page.click("#pair-more") if page.locator("#pair-more").is_visible() else None
    drawn(page)
    assert seen.messages == []
    assert seen.dialogs == []
    assert seen.requests == [f"file://{file}"]
    assert page.evaluate("window.hacked") is None
    assert page.locator(ELEMENTS).count() == 0
    assert page.locator("script").count() == 2
    assert page.locator("style").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    order = ["verdict", "curves", "measured", "pairs", "samples", "features", "settings"]
    assert page.locator("main > section").evaluate_all("all => all.map(s => s.id)") == order
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\ufeff\x1b\x9b]", page.content())
    shown = page.locator("#pair-list .tokens").first.locator("span").all_text_contents()
    assert shown == [for_page(text, 4000) for text in TEXTS]
    size = page.locator("#pair-list details").first.bounding_box()
    assert size["height"] < 3000
    assert file.stat().st_size < 3 * 2**20


def test_names_of_runs_and_settings(show, run, folder):
    """A folder's name is the title; a comparison shows settings as they are."""
    name = "<img src=x onerror=window.hacked=1>\u202e\x1b[2J"
    place = folder / name
    shutil.copytree(run.output, place, dirs_exist_ok=True)
    config = json.loads((place / "fpo_config.json").read_text())
    config |= {"feature_weights": "</script><script>window.hacked=1</script>", name: 1}
    (place / "fpo_config.json").write_text(json.dumps(config))
    report = fpo.report(runs=[run.output, place], output=folder / "names.html")
    seen = show(report.file)
    assert seen.messages == []
    assert seen.page.evaluate("window.hacked") is None
    assert seen.page.locator(ELEMENTS).count() == 0


@pytest.mark.parametrize("sealed_again", [False, True])
def test_a_damaged_record_is_one_sentence(run, folder, sealed_again):
    place = folder / "damaged"
    shutil.copytree(run.output, place, dirs_exist_ok=True)
    whole = json.loads((run.output / "report.json").read_text())
    for name, value in {"features": [{}], "saes": {"a": 1}, "about": None, "d": "x"}.items():
        broken = copy.deepcopy(whole) | {name: value}
        broken = sealed(broken) if sealed_again else broken
        (place / "report.json").write_text(json.dumps(broken))
        with pytest.raises(fpo.ConfigError, match=r"report\.json"):
            fpo.report(runs=[place])


def test_there_are_sixty():
    assert len(TEXTS) == len({*TEXTS}) == 60


def test_a_run_on_hostile_rows(show, folder, settings):
    """The same texts as a user's own pairs, through tokenizer, training and page."""
    rows = [
        {"prompt": text, "chosen": f"yes {text}", "rejected": f"no {other}"}
        for text, other in zip(TEXTS, TEXTS[1:] + TEXTS[:1], strict=True)
        if "\ud800" not in text + other
    ]
    data = folder / "hostile.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    without = {k: v for k, v in settings.items() if k not in ("sae", "normalize_d", "max_rows")}
    more = {"objective": "dpo", "beta": 0.1, "data": data, "iters": 2, "shown_pairs": 60}
    run = fpo.train(**without | more, output=folder / "hostile-rows", sink=lambda _: None)
    seen = show(run.report)
    page = seen.page
    page.locator("#pair-more").evaluate("button => button.click()")
    for details in page.locator("#pair-list details").all():
        details.evaluate("element => { element.open = true }")
    drawn(page)
    assert seen.messages == []
    assert seen.requests == [f"file://{run.report}"]
    assert page.evaluate("window.hacked") is None
    assert page.locator(ELEMENTS).count() == 0
    assert page.locator("#pair-list details").count() > 40
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_the_terminal_stays_sane(capsys):
    ui = Ui()
    for text in TEXTS:
        short = text[:300]
        ui.piece(short)
        ui.say(short)
        ui.side_by_side([(short, short), ("base", short)])
    out = capsys.readouterr().out
    assert not [char for char in out if not char.isprintable() and char not in "\n\t"]
