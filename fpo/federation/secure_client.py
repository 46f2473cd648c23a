"""A client's side of secure aggregation: Flower's SecAgg+ mod, and the FitIns that it passes on."""

# pyright: reportMissingImports=false

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Context, Message
from flwr.client.mod import secaggplus_mod
from flwr.common import (
    Code,
    FitRes,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS
from flwr.compat.common.recorddict_compat import fitres_to_recorddict, recorddict_to_fitins

from fpo.federation.client import Client
from fpo.federation.strategies import CLIENT, STEPS
from fpo_core.errors import ConfigError, TrainingError

Secure = Callable[[Context], bool]
"""Whether the settings of a node have `secure_aggregation`."""


def is_masked(message: Message) -> bool:
    """Whether a message belongs to Flower's SecAgg+."""
    return RECORD_KEY_CONFIGS in message.content


def masking(secure: Secure) -> Any:
    """Flower's SecAgg+ mod for a client whose settings say so.

    Where the server's and the client's settings differ it raises ConfigError, so that no server
    gets a plain update out of a client that masks its own.
    """

    def mod(message: Message, context: Context, call_next: Any) -> Message:
        asked, here = is_masked(message), secure(context)
        if asked != here:
            raise ConfigError(
                f"secure_aggregation is {here} here, but {asked} on the server: set it alike"
            )
        if here:
            return secaggplus_mod(message, context, call_next)
        return call_next(message, context)

    return mod


def fit(client: Client, message: Message) -> Message:
    """Local steps from Flower's older FitIns; its FitRes, which the mod then masks.

    Raises ConfigError where the client holds more pairs than weights allow, TrainingError where a
    weight is beyond the range that is masked.
    """
    ins = recorddict_to_fitins(message.content, keep_input=True)
    config: Any = ins.config
    names, most = json.loads(config["names"]), int(config["max-pairs"])
    if client.pairs > most:
        raise ConfigError(
            f"{client.name} holds {client.pairs} pairs, but max_pairs is {most}: raise it for all"
        )
    sent = dict(zip(names, parameters_to_ndarrays(ins.parameters), strict=True))
    result = client.train(sent, int(config["server-round"]), int(config["local-iters"]))
    # NumPy's maximum is NaN where one is; Python's depends on the order.
    peak = np.max([np.abs(w).max() for w in result.weights.values()])
    limit = config["clipping-range"]
    if not np.isfinite(peak):
        raise TrainingError(f"a weight of {client.name} is {peak}: lower learning_rate")
    if not peak <= limit:
        raise TrainingError(
            f"a weight of {client.name} is {peak:.3g}, but clipping_range is {limit:g}: raise it"
        )
    weights = ndarrays_to_parameters([result.weights[name] for name in names])
    metrics: Any = {CLIENT: client.name, STEPS: result.steps, "loss": result.loss}
    answer = FitRes(Status(Code.OK, ""), weights, result.pairs, metrics)
    return Message(fitres_to_recorddict(answer, keep_input=False), reply_to=message)
