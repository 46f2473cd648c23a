"""Messages of other libraries, cut where they are too long."""

from fpo_core.errors import shorten


def test_what_fits_is_whole_on_one_line():
    assert shorten(ValueError("Received 2 parameters not in model: \na.b,\nc.d.\n")) == (
        "Received 2 parameters not in model: a.b, c.d"
    )


def test_a_list_ends_after_an_item():
    names = ", ".join(f"model.layers.{i}.weight" for i in range(50))
    found = shorten(ValueError(f"Received 50 parameters not in model: {names}"), 80)
    assert found == "Received 50 parameters not in model: model.layers.0.weight …"


def test_sentences_that_fit_stay():
    message = "The file is damaged. Save it again. " + "Read the long manual about it. " * 20
    assert shorten(OSError(message), 40) == "The file is damaged. Save it again"


def test_a_message_without_words_gets_its_kind():
    assert shorten(KeyError("num_experts")) == "KeyError: 'num_experts'"
    assert shorten(ValueError()) == "ValueError"
