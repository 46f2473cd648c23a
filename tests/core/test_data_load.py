import json
import subprocess
import sys

import pytest

from fpo_core.config import DataConfig
from fpo_core.data.cache import cache_root
from fpo_core.data.load import load_data
from fpo_core.data.report import DataReport
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.data.tokenizer import load_tokenizer, special_ids, tokenizer_digest
from fpo_core.errors import DataError, ModelError
from tests.core import data_fixtures as fx
from tests.core.data_fixtures import assistant, user, write_jsonl

LETTERS = "abcdef"


def talks(count):
    """Pairs of distinct prompts, all usable."""
    return [
        {
            "prompt": [user(" ".join(LETTERS[(i // 6**k) % 6] for k in range(6)))],
            "chosen": [assistant("a b")],
            "rejected": [assistant("c" + " d" * (i % 3))],
        }
        for i in range(count)
    ]


@pytest.fixture
def load(tmp_path):
    def run(rows=None, tokenizer=None, seed=0, workers=1, **settings):
        if rows is not None:
            write_jsonl(tmp_path / "p.jsonl", rows)
        settings = {"data": str(tmp_path / "p.jsonl"), "cache": str(tmp_path / "cache")} | settings
        return load_data(
            DataConfig(**settings), tokenizer or fx.word_tokenizer(), seed, workers=workers
        )

    return run


def test_rows_come_from_the_cache_the_second_time(load):
    first = load(talks(20))
    second = load()
    assert (first.report.cached, second.report.cached) == (False, True)
    assert first.folder == second.folder
    assert first.train.keys() == second.train.keys()
    assert len(first.train) == 20
    assert first.valid is None
    assert second.report.splits == first.report.splits


@pytest.mark.parametrize("change", ["data", "tokenizer", "template", "length", "prompt", "rows"])
def test_whatever_rows_depend_on_makes_new_ones(load, change):
    before = load(talks(20)).folder
    after = {
        "data": lambda: load(talks(21)),
        "tokenizer": lambda: load(tokenizer=fx.word_tokenizer(eos="<pad>")),
        "template": lambda: load(tokenizer=fx.word_tokenizer(fx.WITH_BOS)),
        "length": lambda: load(max_seq_length=32),
        "prompt": lambda: load(max_prompt_length=30),
        "rows": lambda: load(max_rows=5),
    }[change]()
    assert after.folder != before
    assert not after.report.cached


def test_seed_and_strict_make_no_new_rows(load):
    before = load(talks(20)).folder
    assert load(seed=1, strict=True).folder == before
    held = [load(seed=seed, valid_fraction=0.3).folder for seed in (0, 1)]
    assert len({before, *held}) == 3


def test_tokenizer_digest_is_the_same_after_use_and_from_elsewhere(tmp_path):
    tokenizer = fx.word_tokenizer()
    before = tokenizer_digest(tokenizer)
    tokenizer(["a b", "a"], padding=True, truncation=True, max_length=4)
    assert tokenizer_digest(tokenizer) == before
    digests = set()
    for name in ("one", "two"):
        tokenizer.save_pretrained(tmp_path / name)
        digests.add(tokenizer_digest(load_tokenizer(str(tmp_path / name))))
    assert len(digests) == 1


@pytest.mark.parametrize("name", ["train.tokens", "train.index", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_cache_is_rebuilt(load, name, damage):
    first = load(talks(20))
    keys, path = first.train.keys(), first.folder / name
    content = path.read_bytes()
    del first
    if damage == "remove":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    again = load()
    assert not again.report.cached
    assert again.train.keys() == keys
    assert path.read_bytes() == content
    assert load().report.cached


def test_a_cache_short_of_whole_rows_is_rebuilt(load):
    first = load(talks(20))
    last = first.train[19]
    size = sum(len(side) for side in (last.prompt, last.chosen, last.rejected))
    for name, cut in (("train.tokens", 4 * size), ("train.index", 44)):
        path = first.folder / name
        path.write_bytes(path.read_bytes()[:-cut])
    assert len(TokenisedPairs.open(first.folder, "train")) == 19
    assert len(load().train) == 20


def test_a_failed_build_leaves_nothing(load, tmp_path):
    with pytest.raises(DataError, match=r"line 3: no column 'rejected'"):
        load([*talks(2), {"chosen": "a"}])
    assert not (tmp_path / "cache").exists()


def test_cache_folder_is_the_setting_or_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FPO_CACHE", str(tmp_path))
    assert cache_root("elsewhere").parent.name == "elsewhere"
    assert cache_root(None).parent == tmp_path
    monkeypatch.delenv("FPO_CACHE")
    assert cache_root(None).parent.name == "fpo-mlx"


def test_a_cache_that_cannot_be_written(load, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="set cache"):
        load(talks(2), cache=str(tmp_path / "file"))


def test_held_out_prompts_are_apart(load):
    data = load(talks(200), valid_fraction=0.2)
    assert data.valid is not None
    assert len(data.train) + len(data.valid) == 200
    assert 20 < len(data.valid) < 60
    assert not set(data.train.keys()) & set(data.valid.keys())
    assert load(seed=3, valid_fraction=0.2).valid.keys() != data.valid.keys()


def test_a_validation_file_comes_before_the_fraction(load, tmp_path):
    write_jsonl(tmp_path / "folder.train", [])
    folder = tmp_path / "folder"
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", talks(20))
    write_jsonl(folder / "valid.jsonl", talks(3))
    data = load(data=str(folder), valid_fraction=0.5)
    assert (len(data.train), len(data.valid)) == (20, 3)


def test_max_rows_is_per_split(load):
    data = load(talks(200), valid_fraction=0.5, max_rows=7)
    assert (len(data.train), len(data.valid)) == (7, 7)


def test_report_counts_and_names(load):
    rows = talks(4)
    rows[2]["rejected"] = rows[2]["chosen"]
    data = load(rows)
    split = data.report.splits["train"]
    assert (split.read, split.kept, split.dropped) == (4, 3, 1)
    assert data.train.source_rows().tolist() == [1, 2, 4]
    header, problem = data.report.lines()
    assert header.startswith("train: 3 of 4 pairs, ")
    assert "1 × dropped: chosen and rejected are the same tokens (p.jsonl, line 3)" in problem
    mapping = json.loads(json.dumps(data.report.to_mapping()))
    assert mapping["splits"]["train"]["issues"] == {"identical": 1}
    assert DataReport.from_mapping(mapping, cached=False) == data.report


def test_only_the_first_rows_are_named(load):
    rows = [row | {"rejected": row["chosen"]} for row in talks(700)]
    split = load([*talks(1), *rows]).report.splits["train"]
    assert split.issues == {"identical": 700}
    assert split.examples["identical"] == [f"p.jsonl, line {i}" for i in range(2, 12)]
    assert split.problems()[0].endswith("line 11, ...)")


@pytest.mark.parametrize("cached", [False, True])
def test_strict_refuses_rows_that_would_change(load, cached):
    rows = talks(4)
    rows[1]["chosen"] = [assistant("a b " * 40)]
    if cached:
        load(rows, max_seq_length=32)
    with pytest.raises(DataError, match=r"strict.*completion cut.*line 2"):
        load(rows, max_seq_length=32, strict=True)


def test_strict_refuses_a_prompt_that_is_no_prefix(load):
    with pytest.raises(DataError, match=r"4 × prompt is not a prefix.*p\.jsonl, line 1"):
        load(talks(4), tokenizer=fx.word_tokenizer(fx.THINKING), strict=True)


def test_data_without_a_usable_pair_is_refused(load):
    with pytest.raises(DataError, match="train data set is empty"):
        load([])
    with pytest.raises(DataError, match="no usable train pair among 1 rows: 1 × dropped: chosen"):
        load([talks(1)[0] | {"rejected": talks(1)[0]["chosen"]}])
    with pytest.raises(DataError, match=r"valid_fraction 0\.01 leaves no valid pair"):
        load(talks(2), valid_fraction=0.01)


def test_processes_and_chunks_change_nothing(load, monkeypatch, tmp_path):
    alone = load(talks(900), cache=str(tmp_path / "one"))
    monkeypatch.setattr("fpo_core.data.workers._CHUNKS_IN_PROCESS", 0)
    monkeypatch.setattr("fpo_core.data.workers._ROWS_PER_CHUNK", 70)
    together = load(workers=2, cache=str(tmp_path / "two"))
    assert alone.report == together.report
    for name in ("train.tokens", "train.index"):
        assert (alone.folder / name).read_bytes() == (together.folder / name).read_bytes()


def test_errors_in_a_process_come_back(load, monkeypatch):
    monkeypatch.setattr("fpo_core.data.workers._CHUNKS_IN_PROCESS", 0)
    with pytest.raises(DataError, match=r"line 1: found messages, but the tokenizer has no chat"):
        load(talks(2), tokenizer=fx.word_tokenizer(None), workers=2)


def test_special_ids():
    ids = special_ids(fx.word_tokenizer())
    assert ids == {"bos": (1,), "eos": (2,), "pad": (0,), "end_of_turn": (fx.END,)}
    assert special_ids(fx.word_tokenizer(None))["end_of_turn"] == (fx.EOS,)
    assert special_ids(fx.word_tokenizer("{{ nothing.here.at_all }}", eos=None))["eos"] == ()


def test_load_tokenizer_says_what_is_wrong(tmp_path):
    for name in ("./nowhere", "tests/nowhere"):
        with pytest.raises(ModelError, match="no folder"):
            load_tokenizer(name)
    with pytest.raises(ModelError, match=r"holds no tokenizer, expected tokenizer\.json"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="a file; expected a folder"):
        load_tokenizer(str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("You are trying to access a gated repo.\nMake sure", "is gated on the hub"),
        ("We couldn't connect to 'https://huggingface.co'", "hub cannot be reached"),
        (
            "x is not a local folder and is not a valid model identifier",
            "neither a local folder nor a public model",
        ),
        ("Please pass `trust_remote_code=True`", "has custom code"),
        ("Something. Else", "cannot be loaded: Something$"),
    ],
)
def test_hub_failures_are_one_sentence(monkeypatch, raised, said):
    from transformers import AutoTokenizer

    def from_pretrained(*args, **kwargs):
        raise OSError(raised)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", from_pretrained)
    with pytest.raises(ModelError, match=said) as caught:
        load_tokenizer("someone/model")
    assert "\n" not in str(caught.value)


def test_importing_the_data_road_loads_numpy_alone():
    heavy = {"torch", "mlx", "transformers", "datasets", "pyarrow", "tokenizers", "rich"}
    code = (
        "import sys, fpo_core.data, fpo_core.data.inspect;"
        f"print(sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
