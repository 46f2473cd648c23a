"""`fpo sae features --report`: an autoencoder's features on the user's own texts."""

import numpy as np
import pytest

import fpo
from fpo.world import assets

from .open_rows import drawn

TEXTS = {
    "polite.txt": ["We thank you warmly. The lamp is lovely.", "Please allow me to help you."],
    "rude.txt": ["What a hopeless thing to want.", "The lamp is awful and weak.", "No."],
}


@pytest.fixture(scope="module", params=["torch", "mlx"])
def ranking(request, settings, folder):
    for name, texts in TEXTS.items():
        (folder / name).write_text("\n".join(texts))
    return fpo.rank_features(
        model=assets().model,
        sae=settings["sae"],
        positive=folder / "polite.txt",
        negative=folder / "rude.txt",
        report=folder / f"features-{request.param}.html",
        backend=request.param,
    )


def test_the_page_shows_the_ranking(show, ranking, folder):
    seen = show(ranking.report)
    page = seen.page
    assert seen.messages == []
    assert page.locator("h2").all_text_contents() == ["Features that differ"]
    names = page.locator("#feature-table tbody th").all_text_contents()
    assert names == [str(feature.index) for feature in ranking.features]
    cells = page.locator("#feature-table tbody tr:first-child td:nth-child(5)").all()
    shown = [float(cell.get_attribute("data-value")) for cell in cells]
    np.testing.assert_allclose(shown, [f.difference for f in ranking.features], atol=1e-5)
    first = page.locator("#feature-table details").first
    first.evaluate("details => { details.open = true }")
    drawn(page)
    where = first.locator(".where").all_text_contents()
    assert all(text.endswith(("positive", "negative")) for text in where)
    assert first.locator(".a4").count() >= 1


def test_another_file_is_not_written_over(ranking, folder, settings):
    (folder / "notes.html").write_text("mine")
    with pytest.raises(fpo.ConfigError, match="not written by this program"):
        fpo.rank_features(
            model=assets().model,
            sae=settings["sae"],
            positive=folder / "polite.txt",
            negative=folder / "rude.txt",
            report=folder / "notes.html",
        )
