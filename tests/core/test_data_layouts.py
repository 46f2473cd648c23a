"""Rows with names and columns as public data sets publish them: read right or refused."""

import pytest

from fpo_core.config import DataConfig
from fpo_core.data.tokenise import PairTokeniser
from fpo_core.errors import DataError
from fpo_core.pairs.messages import text_of
from fpo_core.pairs.pair import parse_pair
from tests.core import data_fixtures as fx
from tests.core.data_fixtures import assistant, user

Q, GOOD, BAD = "Which animal purrs?", "The cat does.", "A stone does."
ASK, YES, NO = user(Q), assistant(GOOD), assistant(BAD)
TALKS = {"chosen": [ASK, YES], "rejected": [ASK, NO]}
SYSTEM = "You know animals."
HH = f"\n\nHuman: {Q}\n\nAssistant: "


def says(**more):
    """The row of `Q`, read with all of `more` in its prompt."""
    return "\n".join([*more.values(), Q])


LAYOUTS = {
    "trl-lib/tldr-preference": ({"prompt": Q, "chosen": GOOD, "rejected": BAD}, Q),
    "trl-lib/ultrafeedback_binarized": (TALKS | {"score_chosen": 8.0, "score_rejected": 3.0}, Q),
    "trl-lib/hh-rlhf-helpful-base": ({"prompt": [ASK], "chosen": [YES], "rejected": [NO]}, Q),
    "HuggingFaceH4/ultrafeedback_binarized": (
        TALKS
        | {"prompt": Q, "prompt_id": "f1", "messages": [ASK, YES]}
        | {"score_chosen": 8.0, "score_rejected": 3.0},
        Q,
    ),
    "openbmb/UltraFeedback": (
        {
            "source": "own",
            "instruction": Q,
            "models": ["m", "n", "o"],
            "completions": [
                {"model": "m", "response": "Some do.", "overall_score": 5.0},
                {"model": "n", "response": GOOD, "overall_score": 8.5},
                {"model": "o", "response": BAD, "overall_score": 1.0},
            ],
            "correct_answers": ["None"],
        },
        Q,
    ),
    "argilla/ultrafeedback-binarized-preferences": (
        {
            **{
                "source": "own",
                "instruction": Q,
                "chosen_response": GOOD,
                "rejected_response": BAD,
            },
            **{"chosen_avg_rating": 4.5, "rejected_avg_rating": 2.0, "chosen_model": "m"},
        },
        Q,
    ),
    "argilla/ultrafeedback-binarized-preferences-cleaned": (
        TALKS
        | {"source": "own", "prompt": Q, "chosen-rating": 4.5, "chosen-model": "m"}
        | {"rejected-rating": 2.0, "rejected-model": "n"},
        Q,
    ),
    "argilla/distilabel-math-preference-dpo": (
        {
            **{"metadata": "{}", "instruction": Q, "chosen_response": GOOD, "chosen_rating": 9.0},
            **{"rejected_response": BAD, "rejected_rating": 2.0},
        },
        Q,
    ),
    "argilla/distilabel-intel-orca-dpo-pairs": (
        {
            **{
                "system": SYSTEM,
                "input": Q,
                "chosen": GOOD,
                "rejected": BAD,
                "status": "unchanged",
            },
            **{"generations": [GOOD, BAD], "rating": [9.0, 2.0], "rationale": "Stones don't purr."},
        },
        says(system=SYSTEM),
    ),
    "argilla/dpo-mix-7k": (
        TALKS | {"dataset": "own", "chosen_rating": 5.0, "rejected_rating": 1.0},
        Q,
    ),
    "argilla/distilabel-capybara-dpo-7k-binarized": (
        TALKS
        | {"source": "own", "prompt": Q, "conversation": [{"input": Q, "output": GOOD}]}
        | {"original_response": GOOD, "rating_chosen": 5, "rating_rejected": 2},
        Q,
    ),
    "argilla/OpenHermesPreferences": (
        TALKS
        | {"source": "own", "prompt": Q, "candidates_completions": [GOOD, BAD], "ranks": [1, 2]},
        Q,
    ),
    "Intel/orca_dpo_pairs": (
        {"system": SYSTEM, "question": Q, "chosen": GOOD, "rejected": BAD},
        says(system=SYSTEM),
    ),
    "jondurbin/truthy-dpo-v0.1": (
        {
            "id": "1",
            "source": "own",
            "system": SYSTEM,
            "prompt": Q,
            "chosen": GOOD,
            "rejected": BAD,
        },
        says(system=SYSTEM),
    ),
    "jondurbin/gutenberg-dpo-v0.1": (
        {"prompt": Q, "chosen": GOOD, "rejected": BAD, "rejected_model": "m"},
        Q,
    ),
    "mlabonne/orpo-dpo-mix-40k": (TALKS | {"source": "own", "prompt": Q, "question": Q}, Q),
    "snorkelai/Snorkel-Mistral-PairRM-DPO-Dataset": (
        TALKS | {"prompt_id": "1", "prompt": Q, "all_generated_responses": [GOOD, BAD]},
        Q,
    ),
    "allenai/llama-3.1-tulu-3-8b-preference-mixture": (TALKS | {"id": "1", "source": "own"}, Q),
    "Anthropic/hh-rlhf": ({"chosen": HH + GOOD, "rejected": HH + BAD}, Q),
    "Dahoas/full-hh-rlhf": (
        {"prompt": HH, "response": GOOD, "chosen": GOOD, "rejected": BAD},
        Q,
    ),
    "berkeley-nest/Nectar": (
        {
            "prompt": HH,
            "answers": [
                {"answer": "Some do.", "model": "m", "rank": 2.0},
                {"answer": GOOD, "model": "n", "rank": 1.0},
                {"answer": BAD, "model": "o", "rank": 7.0},
            ],
            "turns": 1,
            "source": ["own"],
        },
        Q,
    ),
    "hiyouga/DPO-En-Zh-20k": (
        {
            "conversations": [
                {"from": "system", "value": SYSTEM},
                {"from": "human", "value": Q},
            ],
            "chosen": {"from": "gpt", "value": GOOD},
            "rejected": {"from": "gpt", "value": BAD},
        },
        says(system=SYSTEM),
    ),
    "llamafactory/comparison_gpt4_en": (
        {"instruction": "Answer.", "input": Q, "output": [GOOD, BAD]},
        f"Answer.\n{Q}",
    ),
    "LLaMA-Factory's Alpaca preferences": (
        {
            **{"instruction": Q, "input": "", "chosen": GOOD, "rejected": BAD},
            **{"system": SYSTEM, "history": [["Hello?", "Hello."]]},
        },
        f"{SYSTEM}\nHello?\nHello.\n{Q}",
    ),
    "lvwerra/stack-exchange-paired": (
        {"qid": 1, "question": Q, "date": "2020", "response_j": GOOD, "response_k": BAD},
        Q,
    ),
    "Vezora/Code-Preference-Pairs": (
        {"instruction": Q, "accepted": GOOD, "rejected": BAD, "ID": 1},
        Q,
    ),
    "xinlai/Math-Step-DPO-10K": (
        {"prompt": Q, "chosen": GOOD, "rejected": BAD, "full_chosen": GOOD, "answer": "cat"},
        Q,
    ),
    "allenai/reward-bench": (
        {"id": 1, "prompt": Q, "chosen": GOOD, "chosen_model": "m", "rejected": BAD, "subset": "x"},
        Q,
    ),
}

REFUSED = {
    "stanfordnlp/SHP": (
        {"post_id": "1", "history": Q, "human_ref_A": GOOD, "human_ref_B": BAD, "labels": 1},
        r"no column 'chosen'.*human_ref_A and human_ref_B say nothing of their order",
    ),
    "PKU-Alignment/PKU-SafeRLHF": (
        {"prompt": Q, "response_0": GOOD, "response_1": BAD, "better_response_id": 0},
        r"response_0 and response_1 say nothing of their order",
    ),
    "tatsu-lab/alpaca_farm": (
        {"instruction": Q, "input": "", "output_1": GOOD, "output_2": BAD, "preference": 1},
        r"output_1 and output_2 say nothing of their order",
    ),
    "nvidia/HelpSteer3": (
        {"context": [ASK], "response1": GOOD, "response2": BAD, "overall_preference": -2},
        r"columns such as prompt=context,chosen=NAME,rejected=NAME",
    ),
    "openai/webgpt_comparisons": (
        {
            "question": {"full_text": Q},
            "answer_0": GOOD,
            "score_0": 1,
            "answer_1": BAD,
            "score_1": 0,
        },
        r"answer_0 and answer_1 say nothing",
    ),
    "lmsys/chatbot_arena_conversations": (
        {"model_a": "m", "model_b": "n", "winner": "model_a", "conversation_a": [ASK, YES]},
        r"no column 'chosen'; found model_a",
    ),
    "winner and loser": (
        {"question": Q, "winner": GOOD, "loser": BAD},
        r"set columns to prompt=question,chosen=winner,rejected=loser",
    ),
    "trl-lib/rlaif-v": (
        {
            "images": [{"bytes": "x"}],
            "prompt": [
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": Q}]}
            ],
            "chosen": [YES],
            "rejected": [NO],
        },
        r"the column images holds a list, expected text",
    ),
    "openbmb/RLAIF-V-Dataset": (
        {"image": {"bytes": "x"}, "question": Q, "chosen": GOOD, "rejected": BAD},
        r"the column image holds an object, expected text",
    ),
}


def chat_bytes():
    """A tokenizer without unknown text, with a chat template."""
    tokenizer = fx.byte_tokenizer()
    tokenizer.chat_template = fx.CHATML
    return tokenizer


@pytest.mark.parametrize("name", LAYOUTS)
def test_public_layouts_are_read_with_their_prompt(name):
    row, prompt = LAYOUTS[name]
    pair = parse_pair(row, 1, "row 1")
    assert tuple(map(text_of, pair.split())) == (prompt, GOOD, BAD)
    packed, report = PairTokeniser(chat_bytes(), 512)([pair])
    assert report.kept == 1
    assert report.problems() == []
    decoded = chat_bytes().decode(packed.tokens)
    assert all(line in decoded for line in prompt.split("\n"))


@pytest.mark.parametrize("name", REFUSED)
def test_other_public_layouts_are_refused_with_what_to_do(name):
    row, message = REFUSED[name]
    with pytest.raises(DataError, match=r"^row 1: " + r".*" + message):
        parse_pair(row, 1, "row 1")


def test_the_proposed_mapping_reads_the_row():
    row, _ = REFUSED["winner and loser"]
    config = DataConfig(data="x", columns="prompt=question,chosen=winner,rejected=loser")
    pair = parse_pair(row, 1, "", config.column_names())
    assert pair.split() == (Q, GOOD, BAD)
