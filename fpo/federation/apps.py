"""A client as Flower's ClientApp, and a grid that calls such apps in this process."""

# pyright: reportMissingImports=false

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from fpo.federation.client import Client
from fpo.federation.secure_client import Secure, fit, is_masked, masking
from fpo.federation.strategies import CLIENT, PAIRS, STEPS, arrays_of, numpy_of

ClientOf = Callable[[Context], Client]
"""The client of a node, opened once and kept by the caller."""


def client_app(client_of: ClientOf, secure: Secure, mods: Sequence[Any] = ()) -> ClientApp:
    """Flower's app around a client; `mods` are Flower's, for what training sends, before masks."""
    app = ClientApp()

    # Of training alone: Flower's privacy mods refuse an answer without arrays, as others are.
    @app.train(mods=[masking(secure), *mods])
    def train(message: Message, context: Context) -> Message:
        client = client_of(context)
        if is_masked(message):
            return fit(client, message)
        config: Any = message.content["config"]
        result = client.train(
            numpy_of(message.content["arrays"]),
            int(config["server-round"]),
            int(config["local-iters"]),
            mu=float(config.get("proximal-mu", 0.0)),
        )
        metrics = {PAIRS: result.pairs, STEPS: result.steps, "loss": result.loss}
        return _reply(client, metrics, message, arrays_of(result.weights))

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        client = client_of(context)
        values = client.evaluate(numpy_of(message.content["arrays"]))
        pairs = int(values.pop("pairs"))
        return _reply(client, {PAIRS: pairs, **values}, message)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        client = client_of(context)
        scores = client.layer_scores()
        return _reply(client, {PAIRS: client.pairs, "scores": scores}, message)

    return app


def _reply(
    client: Client, metrics: dict[str, Any], message: Message, arrays: Any = None
) -> Message:
    content = RecordDict(
        {
            "metrics": MetricRecord(metrics),
            "about": ConfigRecord({CLIENT: client.name}),
        }
    )
    if arrays is not None:
        content["arrays"] = arrays
    return Message(content, reply_to=message)


class LocalGrid(Grid):
    """Flower's grid without a network: one app for all nodes, called in turn in this process.

    Flower's own simulation engine starts a Ray cluster, with a model in every worker; here clients
    share one model, and a run is the same every time.
    """

    def __init__(self, app: ClientApp, nodes: Mapping[int, dict[str, Any]]) -> None:
        """`nodes` are the configurations of the nodes by their ids."""
        # Messages take the run and the sender of their process, which Flower's runtimes set.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, SUPERLINK_NODE_ID
        self._app = app
        self._contexts = {
            node: Context(1, node, config, RecordDict(), {}) for node, config in nodes.items()
        }
        self._replies: dict[str, Message] = {}

    def set_run(self, run: Any) -> None:
        """There is one run."""

    @property
    def run(self) -> Any:
        """Not known here."""
        raise NotImplementedError("a local grid has no run of Flower's")

    def create_message(self, *args: Any, **options: Any) -> Message:
        """See Flower."""
        return Message(*args, **options)

    def get_node_ids(self) -> Iterable[int]:
        """The ids, in order."""
        return sorted(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Answer every message at once."""
        ids = []
        for message in messages:
            ids.append(str(len(self._replies)))
            self._replies[ids[-1]] = self._answer(message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The answers, each once."""
        return [self._replies.pop(key) for key in list(message_ids)]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """See Flower; nothing is late here."""
        del timeout
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, message: Message) -> Message:
        try:
            # A copy, as over a network: mods write into what they read.
            message = copy.deepcopy(message)
            return self._app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:  # as a SuperNode reports it
            return Message(Error(0, f"{type(error).__name__}: {error}"), reply_to=message)
