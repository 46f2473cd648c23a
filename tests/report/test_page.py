"""The page of a run in a real browser: quiet, self-contained, usable by hand, keys and reader."""

import pytest

from .open_rows import drawn

WIDTHS = (400, 1600)


@pytest.fixture
def file(run):
    return run.report


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_quiet_and_asks_for_nothing(show, file, width, scheme):
    seen = show(file, width, scheme)
    assert seen.messages == []
    assert seen.requests == [f"file://{file}"]
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_has_no_serious_findings(show, file, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = show(file, width, scheme).page
    for details in page.locator("#feature-table details").all()[:2]:
        details.evaluate("element => { element.open = true }")
    drawn(page)
    found = Axe().run(page).response["violations"]
    grave = [v for v in found if v["impact"] in ("serious", "critical")]
    assert [(v["id"], v["nodes"][0]["html"][:120]) for v in grave] == []


def test_dark_is_dark(show, file):
    backs = [
        show(file, 800, scheme).page.evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    assert [sum(map(int, back[4:-1].split(","))) > 384 for back in backs] == [True, False]


def test_charts_are_drawn_and_tell_values(show, file):
    page = show(file).page
    titles = page.locator("figcaption b").all_text_contents()
    assert titles[:5] == ["Loss", "Accuracy", "Rewards", "Sequential KL", "Feature discrepancy D"]
    assert {"Constraint over preference", "Peak memory", "Speed"} <= {*titles}
    for figure in page.locator("figure").all():
        lines = figure.locator("path.line").all()
        assert lines
        assert all("NaN" not in path.get_attribute("d") for path in lines)
    chart = page.locator("figure svg").first
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.97, box["y"] + box["height"] / 2)
    tip = page.locator("figure .tip").first
    tip.wait_for()
    assert tip.inner_text().startswith("step 6\n")
    assert "validation" in tip.inner_text()
    chart.focus()
    page.keyboard.press("ArrowRight")
    assert tip.inner_text().startswith("step 0\n")


def margins(page):
    texts = page.locator("#pair-list .margin").all_text_contents()
    return [float(text.replace("−", "-")) for text in texts]


def test_pairs_are_ordered_filtered_and_searched(show, file):
    page = show(file).page
    assert margins(page) == sorted(margins(page))
    page.select_option("#pair-sort", "highest")
    assert margins(page) == sorted(margins(page), reverse=True)
    page.select_option("#pair-filter", "wrong")
    assert all(margin <= 0 for margin in margins(page))
    page.select_option("#pair-filter", "")
    count = len(margins(page))
    first = page.locator("#pair-list .start").first.text_content()
    page.fill("#pair-search", first)
    assert 1 <= len(margins(page)) < count
    assert page.locator("#pair-count").inner_text().startswith(f"{len(margins(page))} of")


def test_tokens_of_a_pair_carry_their_change(show, file, run):
    page = show(file).page
    tokens = page.locator("#pair-list details[open] .tokens").first
    texts = tokens.locator("span").all_text_contents()
    row = page.locator("#pair-list details[open] .where").first.inner_text()
    assert row.startswith("row ")
    assert len(texts) > 5
    titles = [span.get_attribute("title") for span in tokens.locator("span").all()]
    assert all(title.startswith("log π ") and "→" in title for title in titles)
    page.locator("#pair-list summary").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator("#pair-list details[open]").count() == 2


def test_features_are_sorted_filtered_and_searched(show, file):
    page = show(file).page
    rows = page.locator("#feature-table tbody:visible")
    assert rows.count() == 25
    page.click("#feature-more")
    every = rows.count()
    assert every > 25
    column = page.locator("#feature-table thead button").nth(2)
    column.click()

    def values():
        cells = page.locator("#feature-table tbody:visible tr:first-child > *:nth-child(3)")
        return [float(cell.get_attribute("data-value")) for cell in cells.all()]

    assert values() == sorted(values(), reverse=True)
    column.click()
    assert values() == sorted(values())
    assert page.locator("#feature-table th[aria-sort=ascending]").count() == 1
    page.select_option("#feature-filter", "rose")
    assert all(value > 0 for value in values())
    page.select_option("#feature-filter", "")
    texts = page.locator("#feature-table details").first
    texts.locator("summary").click()
    drawn(page)
    assert texts.locator("li .tokens .a4").count() >= 1
    page.fill("#feature-search", texts.locator("li .a4").first.text_content().strip())
    assert 1 <= rows.count() <= every
    name = page.locator("#feature-table tbody th").first.inner_text()
    page.fill("#feature-search", name)
    assert 1 <= rows.count() < every


def test_it_prints(show, file):
    page = show(file).page
    page.emulate_media(media="print")
    assert not page.locator(".tools").first.is_visible()
    assert page.pdf()[:4] == b"%PDF"
