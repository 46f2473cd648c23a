"""Which of a few languages a text is in, by its script and its most frequent words.

For instructions such as "answer in French": a share of function words, no model of a language.
"""

import re
import unicodedata
from collections import Counter

_SCRIPTS = {
    "CYRILLIC": "ru",
    "GREEK": "el",
    "HEBREW": "he",
    "ARABIC": "ar",
    "DEVANAGARI": "hi",
    "THAI": "th",
    "HANGUL": "ko",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "CJK": "zh",
}
_WORDS = {
    "en": "the of and to in is that it for was with as on be at by this are from or have you an "
    "they which one we but not what all were when there can more your has will would who "
    "about if my i",
    "fr": "le la les des du un une et est dans que qui pour sur pas par plus avec ce cette ne il "
    "elle nous vous je au aux sont être son sa ses leur mais ou où se en d l c qu n s j",
    "de": "der die das und ist nicht ein eine einen zu den von mit sich des auf für im dem auch "
    "es an werden aus er sie ich wir ihr dass wird oder sind wie bei noch nach zum zur über",
    "es": "el la los las un una y es en que de por con para no se su al lo como más pero sus le "
    "ya o este sí porque esta son entre está cuando muy sin sobre también me hay yo del",
    "it": "il lo la gli le un una e è in che di per con non si su al del della dei delle come più "
    "ma anche sono questo questa nel nella ha io mi ti ci alla dal",
    "pt": "o a os as um uma e é em que de por com para não se seu sua ao do da dos das no na mais "
    "mas como foi são está eu você isso também ou quando muito",
    "nl": "de het een en is niet van in dat die te op voor met zijn aan er ook als maar om bij "
    "nog dan wat naar uit kan ik je we wordt deze",
}
_FUNCTION_WORDS = {code: frozenset(words.split()) for code, words in _WORDS.items()}
LANGUAGES = (*_FUNCTION_WORDS, *dict.fromkeys(_SCRIPTS.values()))
"""Codes of the languages that are told apart."""


def language_of(text: str) -> str | None:
    """The code of a text's language; None where too little speaks for any.

    Other languages of a script count as its first: Ukrainian reads ru. Japanese is whatever holds
    kana.
    """
    scripts = Counter(_script(char) for char in text if char.isalpha())
    if scripts["HIRAGANA"] + scripts["KATAKANA"] > 0.1 * scripts.total():
        return "ja"
    script, count = scripts.most_common(1)[0] if scripts else ("", 0)
    if script in _SCRIPTS:
        return _SCRIPTS[script] if count > 0.5 * scripts.total() else None
    words = re.findall(r"[^\W\d_]+", text.lower())
    hits = {code: sum(w in known for w in words) for code, known in _FUNCTION_WORDS.items()}
    best, second = sorted(hits, key=hits.__getitem__)[-1:-3:-1]
    clear = hits[best] > hits[second] and hits[best] >= 0.1 * len(words)
    return best if clear else None


def _script(char: str) -> str:
    return unicodedata.name(char, "").partition(" ")[0]
