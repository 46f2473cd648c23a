"""Own pairs, as a newcomer may write them: one plain sentence is preferred over a sales pitch."""

import json
from pathlib import Path


def write_own_pairs(path: Path) -> None:
    """Write 48 conversations in JSON lines: each of 16 topics asked for in three ways."""
    topics = {
        "boil rice": "Simmer one cup of rice in two cups of water for 15 minutes",
        "clean a window": "Wipe it with soapy water, then dry it with a soft cloth",
        "sharpen a pencil": "Turn it in a sharpener until the point is fine",
        "water a cactus": "Give it a little water every two or three weeks",
        "tie a shoe": "Make two loops, cross them and pull one through",
        "make tea": "Pour hot water on the leaves and wait for three minutes",
        "wash wool": "Wash it by hand in cool water with a mild soap",
        "fix a flat tyre": "Find the hole, clean it and stick a patch on it",
        "peel garlic": "Press the clove with a knife and pull off the skin",
        "dry herbs": "Hang them in small bunches in a dark and airy place",
        "remove a stain": "Rub it with cold water and soap before you wash it",
        "fold a shirt": "Lay it flat, fold the sleeves in and then fold it in half",
        "plant a bulb": "Put it in the soil twice as deep as it is high",
        "store bread": "Keep it in a paper bag or a wooden box",
        "boil pasta": "Cook it in salted water until it is soft but firm",
        "paint a door": "Sand it, clean it and paint it in two thin coats",
    }
    pitch = (
        "Oh wow, what an absolutely amazing question! To {topic} is a thrilling journey, and you "
        "are going to love every magical moment of it, my dear friend!"
    )
    asked = ("How do I {topic}?", "Tell me how to {topic}.", "What is the way to {topic}?")
    rows = [
        {
            "prompt": [{"role": "user", "content": ask.format(topic=topic)}],
            "chosen": [{"role": "assistant", "content": f"{answer}."}],
            "rejected": [{"role": "assistant", "content": pitch.format(topic=topic)}],
        }
        for ask in asked
        for topic, answer in topics.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
