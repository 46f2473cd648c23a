"""Kissane's and Rob's autoencoders of GPT-2's heads: NAME.pt and NAME_cfg.json."""

from pathlib import Path

from fpo_convert.formats.json_file import hook_at, read_json, whole
from fpo_convert.formats.keys import refuse_unknown, refuse_values
from fpo_convert.source_formula import Format, Options, Source
from fpo_convert.torch_file import load_pt, tensors_of

_UNDERSTOOD = {"act_name", "act_size", "concat_heads", "dict_size", "enc_dtype", "model_name"}
_IGNORED = {
    "anneal_start",
    "batch_size",
    "beta1",
    "beta2",
    "buffer_batches",
    "buffer_mult",
    "buffer_size",
    "decay_steps",
    "dict_mult",
    "hook_head",
    "head",
    "l1_coeff",
    "layer",
    "lr",
    "model_batch_size",
    "n_resampling",
    "nr",
    "num_resamples",
    "num_tokens",
    "re_init_every",
    "remove_rare_dir",
    "resample_factor",
    "resample_scheme",
    "rs",
    "save_state_dict_every",
    "seed",
    "seq_len",
    "site",
    "tags",
    "device",
    "version",
    "wandb_mode_online",
}
_ALLOWED = {"concat_heads": (True,)}


def config_of(path: Path) -> Path:
    """The settings that lie beside a checkpoint."""
    return path.with_name(path.name.split(".pt")[0] + "_cfg.json")


def detect(path: Path) -> bool:
    """Whether `path` is such a file."""
    return path.suffix == ".pt" and config_of(path).is_file()


def read(path: Path, options: Options) -> Source:
    """relu of (z − b_dec) W + b, z being all heads side by side in TransformerLens's sense."""
    config = config_of(path)
    cfg = read_json(config)
    refuse_values(config, cfg, _ALLOWED)
    refuse_unknown(
        config, cfg, _UNDERSTOOD, ignored=_IGNORED, defaulted=("act_name", "concat_heads")
    )
    return Source(
        files=(path, config),
        architecture="relu",
        tensors=tensors_of(load_pt(path)),
        d_in=whole(config, cfg, "act_size"),
        d_sae=whole(config, cfg, "dict_size"),
        subtract_b_dec=True,
        without_value_bias=True,
        hook=hook_at(config, cfg, "act_name"),
        model_name=str(cfg.get("model_name") or "gpt2-small"),
    )


FORMAT = Format(
    "attention-z", detect, read, files=("{stem}_cfg.json",), loaders=("connor_rob_hook_z",)
)
