"""Questions to all clients at once, beside the rounds: who is there, and what each answers."""

# pyright: reportMissingImports=false

from collections.abc import Callable
from typing import Any, TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fpo.federation.strategies import name_of, wait_for_nodes
from fpo_core.config.federated import FederationConfig
from fpo_core.events import Sink, warn
from fpo_core.io.foreign_text import one_line

T = TypeVar("T")


def ask(
    grid: Grid,
    kind: str,
    content: RecordDict,
    config: FederationConfig,
    sink: Sink,
    read: Callable[[Any], T],
) -> dict[str, T]:
    """What `read` makes of the metrics of every client's answer, by the client's name.

    An error, an answer after `round_timeout`, and one of which `read` raises, are left out with a
    warning. In the order of the nodes.
    """
    nodes = sorted(wait_for_nodes(grid, config))
    messages = [Message(content, node, kind) for node in nodes]
    replies = list(grid.send_and_receive(messages, timeout=config.round_timeout))
    left_out = dict.fromkeys(nodes, "no answer in time")
    answers: dict[str, T] = {}
    for reply in sorted(replies, key=lambda reply: reply.metadata.src_node_id):
        node = reply.metadata.src_node_id
        try:
            if reply.has_error():
                raise ValueError(reply.error.reason)
            if (name := name_of(reply)) in answers:
                raise ValueError(f"another has its name, {name}")
            answers[name] = read(reply.content["metrics"])
            del left_out[node]
        except Exception as error:  # whatever a foreign client puts into its records
            left_out[node] = one_line(str(error))[:200]
    for node, why in left_out.items():
        warn(sink, f"{kind}: node {node} is left out, {why}")
    return answers
