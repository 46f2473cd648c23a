"""The metadata of a canonical autoencoder file: docs/sae_format.md in code."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fpo_core.errors import SaeError
from fpo_core.sae.hook import Hook

FORMAT = "fpo-sae"
FORMAT_VERSION = "1"
ARCHITECTURES = ("relu", "topk", "abstopk", "jumprelu", "gated")
TRANSFORMS = ("none", "layer_norm", "constant_norm_rescale")
SPECIAL_TOKENS = ("bos", "eos", "pad", "special")
_EXTRA = {"jumprelu": ("threshold",), "gated": ("r_mag", "b_mag")}
_REQUIRED = {"format", "format_version", "architecture", "input_transform", "d_in", "d_sae"}
_REQUIRED |= {"payload_sha256", "header_sha256"}
_OPTIONAL = {"k", "hook", "model_name", "untrained_tokens", "folded", "centred", "source"}
_OPTIONAL |= {"neuronpedia_id", "without_value_bias"}


@dataclass(frozen=True, kw_only=True)
class SaeMeta:
    """An autoencoder without its arrays.

    `untrained_tokens` are those excluded from its training: "bos", "eos", "pad", "special" (all
    that the tokenizer calls special) or "id:N". `folded` lists what conversion absorbed into the
    weights. `centred`: inputs were centred before training, so that the decoder reconstructs
    x − mean(x). `without_value_bias`: trained on TransformerLens's z, see
    `fpo_core.sae.value_bias`. `source` says where the weights came from.
    """

    architecture: str
    input_transform: str = "none"
    d_in: int
    d_sae: int
    k: int | None = None
    hook: Hook | None = None
    model_name: str = ""
    untrained_tokens: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    centred: bool = False
    without_value_bias: bool = False
    neuronpedia_id: str = ""
    source: Mapping[str, Any] = field(default_factory=dict)
    payload_sha256: str = ""

    def __post_init__(self) -> None:
        _one_of("architecture", self.architecture, ARCHITECTURES)
        _one_of("input transform", self.input_transform, TRANSFORMS)
        if self.d_in < 1 or self.d_sae < 1:
            raise SaeError(
                f"d_in is {self.d_in} and d_sae is {self.d_sae}, expected at least 1: correct the "
                "configuration of the autoencoder"
            )
        has_k = self.architecture in ("topk", "abstopk")
        if has_k and (type(self.k) is not int or not 1 <= self.k <= self.d_sae):
            raise SaeError(
                f"k is {self.k!r}, expected 1 to d_sae = {self.d_sae}: give the k of the training"
            )
        if not has_k and self.k is not None:
            raise SaeError(f"k is {self.k} for architecture {self.architecture}: remove it")
        for token in self.untrained_tokens:
            if token not in SPECIAL_TOKENS and not _is_id(token):
                raise SaeError(
                    f"untrained token {token!r} is unknown, expected id:N or one of "
                    f"{', '.join(SPECIAL_TOKENS)}: convert the autoencoder again"
                )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the encoder's tensors, then those of the optional decoder."""
        vectors = ("b_enc", *_EXTRA.get(self.architecture, ()))
        encoder = {"W_enc": (self.d_in, self.d_sae)} | dict.fromkeys(vectors, (self.d_sae,))
        return encoder | {"W_dec": (self.d_sae, self.d_in), "b_dec": (self.d_in,)}

    def to_header(self) -> dict[str, str]:
        """The metadata as texts, without the two hashes."""
        texts = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "architecture": self.architecture,
            "input_transform": self.input_transform,
            "d_in": str(self.d_in),
            "d_sae": str(self.d_sae),
            "model_name": self.model_name,
            "untrained_tokens": json.dumps(self.untrained_tokens),
            "folded": json.dumps(self.folded),
            "centred": json.dumps(self.centred),
            "source": json.dumps(dict(self.source), sort_keys=True),
            "neuronpedia_id": self.neuronpedia_id,
        }
        texts |= {"k": str(self.k)} if self.k is not None else {}
        texts |= {"without_value_bias": "true"} if self.without_value_bias else {}
        return texts | ({"hook": str(self.hook)} if self.hook else {})


def header_sha256(header: Mapping[str, Any]) -> str:
    """SHA-256 of the header as sorted compact JSON, without this hash itself.

    Of the parsed header: other writers may order and space it differently.
    """
    metadata = {k: v for k, v in header["__metadata__"].items() if k != "header_sha256"}
    text = json.dumps({**header, "__metadata__": metadata}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def parse_meta(path: Path, header: Mapping[str, Any]) -> SaeMeta:
    """Read and check the metadata of a canonical file. Raises SaeError."""
    texts = header.get("__metadata__") or {}
    if texts.get("format") != FORMAT:
        raise SaeError(
            f"{path} is not an autoencoder in this package's format: run convert_sae on it"
        )
    if texts.get("format_version") != FORMAT_VERSION:
        raise SaeError(
            f"{path} has format version {texts.get('format_version')!r}, expected "
            f"{FORMAT_VERSION!r}: convert the original again with this release"
        )
    missing, extra = _REQUIRED - set(texts), set(texts) - _REQUIRED - _OPTIONAL
    if missing or extra or header_sha256(header) != texts["header_sha256"]:
        raise SaeError(
            f"{path} has a header that was changed after it was written: convert the original again"
        )
    try:
        return _from_texts(texts)
    except (ValueError, TypeError, RecursionError) as error:
        raise SaeError(
            f"{path} has unreadable metadata ({error}): convert the original again"
        ) from None


def _from_texts(texts: Mapping[str, str]) -> SaeMeta:
    return SaeMeta(
        architecture=texts["architecture"],
        input_transform=texts["input_transform"],
        d_in=int(texts["d_in"]),
        d_sae=int(texts["d_sae"]),
        k=int(texts["k"]) if "k" in texts else None,
        hook=Hook.parse(texts["hook"]) if "hook" in texts else None,
        model_name=texts.get("model_name", ""),
        untrained_tokens=tuple(json.loads(texts.get("untrained_tokens", "[]"))),
        folded=tuple(json.loads(texts.get("folded", "[]"))),
        centred=json.loads(texts.get("centred", "false")) is True,
        without_value_bias=json.loads(texts.get("without_value_bias", "false")) is True,
        neuronpedia_id=texts.get("neuronpedia_id", ""),
        source=json.loads(texts.get("source", "{}")),
        payload_sha256=texts["payload_sha256"],
    )


def _one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SaeError(
            f"{what} {value!r} is not supported, expected one of {', '.join(known)}: use another "
            "autoencoder"
        )


def _is_id(token: object) -> bool:
    return isinstance(token, str) and token.startswith("id:") and token[3:].isdecimal()
