"""How functions of `fpo` are called: settings, sinks, stopping, what importing loads."""

import inspect
import json
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import api_page
import generate
import pytest

import fpo
from fpo.generation import Completion
from fpo.quickstart_settings import quickstart_defaults
from fpo.results import Table
from fpo.world import assets
from fpo_cli.console.command import COMMANDS

from .conftest import Settings

ROOT = Path(__file__).parents[2]
OPTIONS = {"config", "sink", "stop", "example", "by"}


def test_importing_loads_no_framework() -> None:
    code = "import fpo, sys; print({'torch', 'mlx', 'transformers', 'numpy'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_name_is_there_and_no_module_hides_a_function() -> None:
    modules = {path.stem for path in (ROOT / "fpo").iterdir() if path.suffix in ("", ".py")}
    for name in fpo.__all__:
        assert not inspect.ismodule(getattr(fpo, name)), name
        assert name not in modules, name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        fpo.nothing  # noqa: B018  # pyright: ignore


def keyword_defaults(function: Any) -> dict[str, Any]:
    """The defaults of a workflow's keywords that are settings."""
    return {
        key: parameter.default
        for key, parameter in inspect.signature(function).parameters.items()
        if key not in OPTIONS or key in function.settings.names()
    }


@pytest.mark.parametrize("name", api_page.WORKFLOWS)
def test_keywords_are_the_settings(name: str) -> None:
    function = getattr(fpo, name)
    keywords = keyword_defaults(function)
    defaults = {
        field.name: ... if field.default is MISSING else field.default
        for field in fields(function.settings)
    }
    assert keywords == defaults | (quickstart_defaults() if name == "quickstart" else {})


def test_options_are_the_keywords() -> None:
    """Each command's options are the settings of some function, with its defaults."""
    calls = [keyword_defaults(getattr(fpo, name)) for name in api_page.WORKFLOWS]
    for command in COMMANDS:
        if not command.run.__module__.startswith("fpo_cli"):
            continue  # of an example
        options = {
            option.name: ... if option.help.endswith("Required.") else option.default
            for option in command.options
        }
        assert options in calls, command.path


def test_a_config_object_and_keywords_over_it() -> None:
    config = fpo.InspectConfig(model=str(assets().model), data=str(assets().pairs), rows=2)
    assert len(fpo.inspect_data(config).rows) == 2
    assert len(fpo.inspect_data(config, rows=1, max_rows=2).rows) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rat": 1.0}, "did you mean 'learning_rate'"),
        ({"rank": 0}, "rank is 0, expected at least 1"),
        ({"sae": None}, "sae is not set while alpha is above 0"),
        ({"model": None}, "model is not set"),
        ({"objective": "dpo", "alpha": 1.0}, "objective dpo has none"),
    ],
)
def test_wrong_settings_are_config_errors(
    values: Settings, message: str, small: Settings, tmp_path: Path
) -> None:
    with pytest.raises(fpo.ConfigError, match=message):
        fpo.train(**(small | {"output": tmp_path / "run"} | values))
    assert list(tmp_path.iterdir()) == []
    assert issubclass(fpo.ConfigError, fpo.FpoError)


def test_the_sink_hears_of_everything(run: fpo.TrainingRun, events: list[fpo.Event]) -> None:
    assert [e.step for e in events if e.kind == "progress" and e.step] == [1, 2]
    events = [event for event in events if event.kind != "progress"]
    kinds = [event.kind for event in events]
    assert kinds[0] == "note"
    assert kinds.index("reference") < kinds.index("begin") < kinds.index("train")
    assert [e.step for e in events if e.kind == "train"] == [1, 2]
    assert kinds.index("done") < kinds.index("end")
    # The log has what happened between `begin` and `end`, and no remarks for people.
    inside = [e.kind for e in events[kinds.index("begin") + 1 : kinds.index("end")]]
    assert [e["kind"] for e in run.events] == inside


def test_without_a_sink_warnings_are_pythons(tmp_path: Path) -> None:
    model = tmp_path / "renamed"
    config = json.loads((assets().model / "config.json").read_text())
    model.mkdir()
    shape = {"model_type": "gemma3_text", "num_hidden_layers": 18, "hidden_size": 640}
    (model / "config.json").write_text(json.dumps(config | shape))
    (model / "model.safetensors").touch()
    with pytest.warns(
        UserWarning,
        match=r"activations of google/gemma-3-270m-it, of whose family or shape .*renamed is",
    ):
        fpo.list_saes(model=model)
    heard: list[fpo.Event] = []
    fpo.list_saes(model=model, sink=heard.append)
    assert [event.kind for event in heard] == ["warning"]


def test_progress_in_plain_lines(
    small: Settings, steps: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fpo.train(**small, **steps, output=tmp_path / "run", sink=fpo.print_progress)
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("training: step 2/2, loss ") for line in lines)
    assert any(line.startswith("step 2: validation loss ") for line in lines)


def test_a_run_stops_where_it_is_asked_to(small: Settings, steps: Settings, tmp_path: Path) -> None:
    settings = small | steps | {"output": tmp_path / "run"}
    with pytest.raises(fpo.StoppedError, match="step 1"):
        fpo.train(**settings, stop=lambda: 2)
    assert fpo.train(**settings, resume=True).to_mapping()["steps"] == 2


def test_an_interrupted_cell_leaves_a_run_that_goes_on(
    small: Settings, steps: Settings, tmp_path: Path
) -> None:
    settings = small | steps | {"output": tmp_path / "run", "save_every": 1}

    def interrupt(event: fpo.Event) -> None:
        if event.kind == "train" and event.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fpo.train(**settings, sink=interrupt)
    assert fpo.train(**settings, resume=True).to_mapping()["steps"] == 2


def test_a_run_ends_where_its_texts_get_harder(
    small: Settings, steps: Settings, tmp_path: Path
) -> None:
    """A rate that breaks the model, a little more with each step."""
    hot = {"learning_rate": 0.1, "warmup": 0, "text": assets().unrelated, "greedy_answers": 0}
    settings = small | steps | hot | {"report": False}
    free = fpo.train(**settings, output=tmp_path / "free")
    start, first, second = (e["eval_perplexity"] for e in free.events if e["kind"] == "eval")
    assert start < first < second
    bound = (first + second) / 2 / start
    run = fpo.train(**settings, output=tmp_path / "bound", max_perplexity=bound)
    assert run.to_mapping()["steps"] == 1
    assert run.to_mapping()["stopped_early"]
    assert any("at step 2 perplexity of texts was" in line for line in run.verdict)
    assert run.metrics["perplexity"] < free.metrics["perplexity"]


HOSTILE = "<script>alert('&')</script>"


def test_tables_escape_what_models_and_data_say(tmp_path: Path) -> None:
    results = [
        Table((HOSTILE,), [(HOSTILE,)], (HOSTILE,)),
        fpo.Generation("torch", "m", None, HOSTILE, 1, [Completion(HOSTILE, 1, True)]),
        fpo.SaeInfo({HOSTILE: HOSTILE}),
    ]
    row = {"prompt": HOSTILE, "chosen": HOSTILE + "a", "rejected": "b"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    pages = [r.html() if isinstance(r, Table) else r._repr_html_() for r in results]
    pages.append(
        fpo.inspect_data(model=assets().model, data=tmp_path / "pairs.jsonl")._repr_html_()
    )
    for page in pages:
        assert "<script" not in page
        assert "&lt;" in page


def test_the_pages_are_up_to_date() -> None:
    pages = {
        "docs/api.md": api_page.page,
        "docs/cli.md": generate.render,
        "fpo/__init__.pyi": api_page.stub,
    }
    for name, render in pages.items():
        assert (ROOT / name).read_text(encoding="utf-8") == render(), "run: make docs"
