"""Judges that ask nobody: functions, rules, and a classifier fitted on labels."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from fpo_core.errors import ConfigError, DataError, JudgeError
from fpo_core.judges.classifier import Classifier, auc, held_out_auc, read_labelled
from fpo_core.judges.judge import FunctionJudge, as_judge, imported_judge
from fpo_core.judges.languages import LANGUAGES, language_of
from fpo_core.judges.rules import KINDS, read_rules, rule


def longer(prompt: str, completion: str) -> int:
    return len(completion)


class Constant:
    name, compares = "constant", True

    def score(self, prompts, completions):
        return [1.0] * len(prompts)

    def prefer(self, prompts, a, b):
        return [0.25] * len(prompts)


def test_a_function_prefers_by_its_numbers() -> None:
    judge = FunctionJudge(longer, "longer")
    assert judge.score(["p", "p"], ["aa", "b"]) == [2.0, 1.0]
    assert judge.prefer(["p"] * 3, ["aa", "b", "c"], ["b", "b", "cc"]) == [1.0, 0.5, 0.0]


def test_no_verdict_is_no_tie() -> None:
    judge = FunctionJudge(lambda p, c: math.nan, "silent")
    assert math.isnan(judge.prefer(["p"], ["a"], ["b"])[0])


def test_a_judge_is_imported_by_its_name() -> None:
    judge = imported_judge("tests.judges.test_cheap_judges:longer")
    assert judge.score(["p"], ["abc"]) == [3.0]
    assert imported_judge("tests.judges.test_cheap_judges:Constant").prefer(
        ["p"], ["a"], ["b"]
    ) == [0.25]


@pytest.mark.parametrize("spec", ["no.such.module:f", "json:nothing", "json:decoder", "half:f"])
def test_what_is_no_judge_is_refused(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half.py").write_text("def f(")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="judge"):
        imported_judge(spec)


def test_a_failing_function_says_so() -> None:
    judge = as_judge(lambda p, c: {}[c], "broken")
    with pytest.raises(JudgeError, match=r"broken failed.*KeyError"):
        judge.score(["p"], ["a"])


@pytest.mark.parametrize(
    ("kind", "value", "good", "bad"),
    [
        ("regex", "^Dear", "Dear all", "Hello, Dear"),
        ("json", True, '```json\n{"a": 1}\n```', "{a: 1}"),
        ("json", ["a", "b"], '{"a": 1, "b": 2}', '{"a": 1}'),
        ("json", False, "plain text", "[1]"),
        ("language", "fr", "Le chat est dans la maison avec vous.", "The cat is in the house."),
        ("language", "ja", "これは日本語の文です。", "这是中文句子。"),
        ("language", "ru", "Это русский текст.", "This is not."),
        ("case", "upper", "ALL 3 CAPS!", "Not ALL"),
        ("case", "lower", "all small.", "Not small"),
        ("quoted", True, '"So it was."', 'He said "yes".'),
        ("quoted", False, 'He said "yes".', '"So it was."'),
        ("contains", ["Lamp", "red"], "The RED lamp", "The red light"),
        ("contains_any", ["lamp", "light"], "A light", "A candle"),
        ("lacks", ["never", "no"], "It is fine", "Never again"),
        ("lacks", ["sorry", "as an AI"], "It was an airport.", "I am, as an AI, unable."),
        ("lacks", "抱歉", "没问题", "很抱歉。"),
        ("starts_with", "Well", " Well, then", "Then, well"),
        ("ends_with", "bye.", "So long, bye. ", "bye. So"),
        ("characters", [None, 5], "12345", "123456"),
        ("words", [2, 3], "two words", "one"),
        ("sentences", 2, "One here. Two here!", "One alone."),
        ("sentences", 1, 'He paid 3.50 and said "thanks!" 😊', "One (it is). Two."),
        ("paragraphs", 2, "one\nof two lines\n\ntwo", "one\ntwo"),
        ("bullets", [2, None], "- a\n* b\n", "- a"),
        ("commas", 0, "no pause", "a, b"),
        ("exclamations", [1, None], "Yes!", "Yes."),
    ],
)
def test_a_rule_tells_good_from_bad(kind: str, value: object, good: str, bad: str) -> None:
    check = rule(kind, value, "here").passes
    assert check(good)
    assert not check(bad)


def test_every_rule_is_tested_above() -> None:
    marks = [m for m in test_a_rule_tells_good_from_bad.pytestmark if m.name == "parametrize"]
    assert {case[0] for case in marks[0].args[1]} == {*KINDS}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *(("regex", "("), ("words", "many"), ("words", True), ("case", "Title")),
        *(("language", "xx"), ("wrods", 3), ("starts_with", 3)),
    ],
)
def test_a_rule_that_is_none_is_refused_by_its_place(kind: str, value: object) -> None:
    with pytest.raises(ConfigError, match="here has the rule"):
        rule(kind, value, "here")


def test_rules_of_a_file_score_the_share_followed(tmp_path) -> None:
    (tmp_path / "rules.yaml").write_text("- words: [2, 4]\n- ends_with: '.'\n  lacks: ['no']\n")
    judge = read_rules(tmp_path / "rules.yaml")
    assert judge.score(["p"] * 3, ["It is so.", "no", ""]) == [1.0, 0.0, 0.0]
    assert judge.score(["p"], ["So."]) == [pytest.approx(2 / 3)]


def test_each_prompt_may_have_rules_of_its_own(tmp_path) -> None:
    rows = [{"prompt": "A", "rules": {"words": 1}}, {"prompt": "B", "rules": [{"words": 2}]}]
    (tmp_path / "rules.jsonl").write_text("\n".join(map(json.dumps, rows)))
    judge = read_rules(tmp_path / "rules.jsonl")
    assert judge.score(["A", "B", "B"], ["one", "one", "one two"]) == [1.0, 0.0, 1.0]
    with pytest.raises(ConfigError, match="no rules for the prompt 'C'"):
        judge.score(["C"], ["one"])


def test_rows_of_one_prompt_add_up_and_a_line_is_a_line(tmp_path) -> None:
    """JSON leaves U+2028 as it is, and Python's `splitlines` would end a line there."""
    rows = [{"prompt": "A\u2028B", "rules": {"words": n}} for n in (1, 2)]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "rules.jsonl").write_text(text)
    assert read_rules(tmp_path / "rules.jsonl").score(["A\u2028B"], ["one"]) == [0.5]
    rows = [{"text": f"a\u2028{label}", "label": label} for label in (0, 1)]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "labels.jsonl").write_text(text)
    assert read_labelled(tmp_path / "labels.jsonl").texts == ["a\u20280", "a\u20281"]


@pytest.mark.parametrize("line", ['{"prompt": "A"}', '{"rules": {"words": 1}}', '"x"',
                                  '{"prompt": ["A"], "rules": {"words": 1}}'])  # fmt: skip
def test_a_row_without_prompt_or_rules_is_named(tmp_path, line: str) -> None:
    (tmp_path / "rules.jsonl").write_text('{"prompt": "A", "rules": {"words": 1}}\n' + line)
    with pytest.raises(ConfigError, match="line 2"):
        read_rules(tmp_path / "rules.jsonl")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Ich bin nicht zu Hause, und das ist auch gut.", "de"),
        ("No hay nada más que decir sobre el tema.", "es"),
        ("Non è che questo sia il problema della città.", "it"),
        ("Isso não é o que você disse para mim.", "pt"),
        ("Dat is niet wat ik van je wilde.", "nl"),
        ("Ελληνικά γράμματα", "el"),
        ("한국어 문장입니다", "ko"),
        ("12 + 3 = 15", None),
        ("Zebra quokka xylophone", None),
    ],
)
def test_languages(text: str, language: str | None) -> None:
    assert language is None or language in LANGUAGES
    assert language_of(text) == language


HAPPY = ["what a lovely day", "great, I love it", "wonderful and bright", "so glad, thank you"]
SAD = ["what an awful day", "bad, I hate it", "terrible and dark", "so sorry, never again"]


def labelled(path, count=12):
    texts = [(f"{text} number {n}", n, label) for n in range(count) for label, side in
             ((1, HAPPY), (0, SAD)) for text in side]  # fmt: skip
    rows = [{"prompt": f"q{n}", "completion": text, "label": label} for text, n, label in texts]
    path.write_text("\n".join(map(json.dumps, rows)))
    return read_labelled(path)


def test_a_classifier_learns_the_labels_and_comes_back_from_its_file(tmp_path) -> None:
    data = labelled(tmp_path / "labels.jsonl")
    judge = Classifier.fit(data.texts, data.labels)
    scores = judge.score(["p"] * 3, ["a lovely bright day", "an awful dark day", " "])
    assert scores[0] > 0.8
    assert scores[1] < 0.2
    assert math.isnan(scores[2])
    assert judge.prefer(["p"], ["lovely"], ["awful"])[0] > 0.9
    assert judge.prefer(["p"], ["lovely"], ["lovely"]) == [0.5]
    judge.save(tmp_path / "judge.safetensors")
    again = Classifier.load(tmp_path / "judge.safetensors")
    np.testing.assert_allclose(again.score([], data.texts), judge.score([], data.texts), atol=1e-5)
    assert held_out_auc(data) > 0.95


def test_the_fit_is_at_the_minimum_of_its_loss(tmp_path) -> None:
    """The bias has no penalty, so that at the minimum the mean residual is 0."""
    data = labelled(tmp_path / "labels.jsonl")
    judge = Classifier.fit(data.texts, data.labels)
    assert np.mean(judge.score([], data.texts)) == pytest.approx(data.labels.mean(), abs=1e-3)


def test_auc_counts_pairs_in_order() -> None:
    """Of 2 × 3 pairs, 4 are in order and one ties: 4.5 / 6."""
    scores, wanted = np.array([3.0, 2.0, 1.0, 2.0, 2.5]), np.array([1, 1, 0, 0, 0], bool)
    assert auc(scores, wanted) == pytest.approx(4.5 / 6)


@pytest.mark.parametrize(
    "text", ['{"completion": "a"}', '{"text": "a", "label": 2}', "[]", '{"text": "a", "label": 1}']
)
def test_labels_that_are_none_are_refused(tmp_path, text: str) -> None:
    (tmp_path / "labels.jsonl").write_text(text)
    with pytest.raises(DataError, match="expected"):
        read_labelled(tmp_path / "labels.jsonl")
