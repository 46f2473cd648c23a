"""Real processes of a federation over HTTPS on loopback, of which one is killed in every round.

A SuperLink with TLS, five SuperNodes that it knows by their keys (four clients on torch, one on
MLX), a run of ten rounds on the embedded world. In each round one SuperNode and all its processes
are killed (kill −9) at a random moment while its client works; a supervisor starts it again. Then
the run of the server is killed too, between rounds, and goes on.

    python -m benchmarks.federated_processes

Needs Flower's programs beside this interpreter (docs/federated.md). Writes
results/federated-processes.json.
"""

import argparse
import datetime
import ipaddress
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.record import ROOT, write_result
from fpo.world import assets
from fpo_core.adapters.reader import load_adapter
from fpo_core.federated.weight_files import read_weights
from tests.ports import free_port

CLIENTS, PAIRS = 5, 16
SETTINGS = {
    "objective": "dpo-norm",
    "rank": 2,
    "learning_rate": 1e-2,
    "schedule": "constant",
    "warmup": 0.0,
    "batch_size": 4,
    "local_iters": 1,
    "max_seq_length": 64,
    "valid_fraction": 0.25,
    "clients": CLIENTS,
    "round_timeout": 120.0,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        processes = Processes(Path(folder), random.Random(arguments.seed))
        try:
            result = processes.measure(arguments.rounds)
        except BaseException:
            shutil.copytree(folder, tempfile.mkdtemp(prefix="federated-"), dirs_exist_ok=True)
            raise
        finally:
            processes.stop()
    print(json.dumps(result, indent=1))
    write_result("federated-processes", result)


class Processes:
    """The SuperLink, the SuperNodes and the server's run, in a folder of files."""

    def __init__(self, folder: Path, generator: random.Random) -> None:
        self.folder, self.generator = folder, generator
        self.port = free_port()
        self.node_ports = [free_port() for _ in range(CLIENTS)]
        programs = str(Path(sys.executable).parent)
        self.environment = os.environ | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in (".", "convert", "cli")),
            "FLWR_HOME": str(folder / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FPO_CACHE": str(folder / "cache"),
        }
        write_keys(folder)
        write_settings(folder)
        (folder / "flwr").mkdir()
        (folder / "flwr" / "config.toml").write_text(
            "[superlink]\ndefault = 'loopback'\n\n[superlink.loopback]\n"
            f"address = '127.0.0.1:{self.port}'\nroot-certificates = '{folder / 'ca.pem'}'\n"
        )
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.due: dict[int, float] = {}
        """When a SuperNode that ended is started again."""

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """The rounds that the server has closed."""
        path = self.folder / "server" / "rounds.json"
        return json.loads(path.read_text())["rounds"] if path.is_file() else []

    def ended(self) -> bool:
        """Whether the server has written its report."""
        return (self.folder / "server" / "federation.json").is_file()

    def measure(self, rounds: int) -> dict[str, Any]:
        """A federation of so many rounds with a kill in each, then of two more, resumed."""
        begin = time.monotonic()
        self.start_link()
        for number in range(CLIENTS):
            self.flwr("supernode", "register", str(self.folder / f"node-{number}.pub"))
            self.start_node(number)
        self.configure(rounds=rounds)
        self.submit()
        kills, memory = [], []
        for number in range(1, rounds + 1):
            kills.append(self.kill_in_round(number))
            memory.append(self.resident())
        end = time.monotonic()
        self.wait(self.ended, "the adapter", self.supervise)
        history = self.rounds
        self.check(history, rounds)
        federation = json.loads((self.folder / "server" / "federation.json").read_text())
        return {
            "rounds": history,
            "kills": kills,
            "memory_mib": memory,
            "clients": federation["clients"],
            "seconds": round(end - begin),
            "resumed": self.resume(history, rounds),
        }

    def start_link(self) -> None:
        """The SuperLink, which only serves clients over TLS that it knows by key."""
        self.start(
            "link",
            "flower-superlink",
            *("--host", "127.0.0.1", "--port", str(self.port)),
            *("--ssl-ca-certfile", str(self.folder / "ca.pem")),
            *("--ssl-certfile", str(self.folder / "server.pem")),
            *("--ssl-keyfile", str(self.folder / "server.key")),
            *("--enable-supernode-auth", "--disable-runtime-dependency-installation"),
        )
        self.wait(lambda: reachable(self.port), "the SuperLink")

    def start_node(self, number: int) -> None:
        """A SuperNode, whose configuration names the settings of its client."""
        self.start(
            f"node-{number}",
            "flower-supernode",
            *("--root-certificates", str(self.folder / "ca.pem")),
            *("--superlink", f"127.0.0.1:{self.port}"),
            *("--auth-supernode-private-key", str(self.folder / f"node-{number}.key")),
            *("--port", str(self.node_ports[number])),
            *("--node-config", f'settings="{self.folder / f"client-{number}.yaml"}"'),
        )

    def start(self, name: str, *command: str) -> None:
        """Start a program that logs to a file of its name."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,  # so that it is killed with the processes that it starts
            )

    def flwr(self, *command: str) -> str:
        """What a command of Flower's prints as JSON."""
        ran = subprocess.run(
            ["flwr", *command, "--format", "json"],
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
        )
        if ran.returncode:
            raise SystemExit(f"flwr {command[0]} failed:\n{ran.stdout}{ran.stderr}")
        return ran.stdout

    def configure(self, **values: Any) -> None:
        """Write the server's settings."""
        settings = {**SETTINGS, "model": str(assets().model), "output": "server"} | values
        (self.folder / "server.yaml").write_text(yaml.safe_dump(settings))

    def submit(self) -> int:
        """Start a run of the app; its id."""
        app = str(ROOT / "examples" / "federated")
        config = f'settings="{self.folder / "server.yaml"}"'
        printed = self.flwr("run", app, "loopback", "--run-config", config)
        return int(json.loads(printed)["run-id"])

    def kill_in_round(self, number: int) -> dict[str, Any]:
        """Kill a SuperNode at work in this round, start it again, wait for the round's end."""
        while True:
            self.supervise()
            working = [n for n in range(CLIENTS) if self.client_of(n) is not None]
            if len(self.rounds) == number - 1 and working:
                break
            if len(self.rounds) >= number:
                raise SystemExit(f"round {number} ended before a client was killed")
            time.sleep(0.1)
        victim = self.generator.choice(working)
        seconds = self.generator.uniform(0, 6)
        time.sleep(seconds)
        in_work = self.client_of(victim) is not None
        self.kill(f"node-{victim}")
        self.wait(lambda: len(self.rounds) >= number, f"round {number}", self.supervise)
        return {"node": victim, "after": round(seconds, 2), "in_work": in_work}

    def supervise(self) -> None:
        """Start every SuperNode that is not there, some seconds after it ended.

        A SuperLink refuses one that was killed until its heartbeat is overdue, up to a minute.
        """
        for number in range(CLIENTS):
            if self.running[f"node-{number}"].poll() is None:
                continue
            due = self.due.setdefault(number, time.monotonic() + self.generator.uniform(1, 10))
            if time.monotonic() > due:
                del self.due[number]
                self.start_node(number)

    def kill(self, name: str) -> None:
        """Kill a program with all processes that it started."""
        os.killpg(self.running[name].pid, signal.SIGKILL)
        self.running[name].wait()

    def stop(self) -> None:
        """End all that is left."""
        for process in self.running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

    def children(self, name: str, program: str) -> list[psutil.Process]:
        """Processes of a program that one of ours started."""
        process = self.running[name]
        if process.poll() is not None:
            return []
        found = []
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                if any(program in word for word in child.cmdline()[:2]):
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
        return found

    def client_of(self, number: int) -> psutil.Process | None:
        """The process in which a client works, where it does."""
        return next(iter(self.children(f"node-{number}", "flwr-clientapp")), None)

    def resident(self) -> dict[str, float]:
        """Resident memory in MiB of what lives from round to round."""
        servers = self.children("link", "flwr-serverapp")
        nodes = [p for n, p in self.running.items() if n != "link" and p.poll() is None]
        node_sizes = [size(psutil.Process(node.pid)) for node in nodes]
        return {
            "link": size(psutil.Process(self.running["link"].pid)),
            "server": sum(map(size, servers)),
            "node": round(float(np.mean(node_sizes)), 1),
        }

    def check(self, history: list[dict[str, Any]], rounds: int) -> None:
        """Raise AssertionError where a round is missing, or weights are not finite."""
        assert [facts["round"] for facts in history] == [*range(1, rounds + 1)]
        assert all(facts["clients"] for facts in history)
        files = [self.folder / "server" / f"global-{len(history)}.safetensors"]
        for n in range(CLIENTS):  # of the last round that each took part in
            files += (self.folder / f"client-{n}").glob("local-*.safetensors")
        adapter = load_adapter(self.folder / "server" / "adapter").weights
        for weights in (adapter, *map(read_weights, files)):
            assert all(np.isfinite(array).all() for array in weights.values())

    def resume(self, history: list[dict[str, Any]], rounds: int) -> dict[str, Any]:
        """Kill the server's process in the round that follows, and go on to one more."""
        (self.folder / "server" / "federation.json").unlink()
        self.wait(lambda: not self.children("link", "flwr-serverapp"), "the run's end")
        self.configure(rounds=rounds + 2, resume=True)
        first = self.submit()
        self.wait(lambda: len(self.rounds) == rounds + 1, "a round", self.supervise)
        for server in self.children("link", "flwr-serverapp"):
            server.kill()
        self.wait(lambda: not self.children("link", "flwr-serverapp"), "the server's end")
        closed = self.rounds
        second = self.submit()
        self.wait(self.ended, "the resumed adapter", self.supervise)
        self.check(self.rounds, rounds + 2)
        assert self.rounds[: len(closed)] == closed
        assert closed[:rounds] == history
        assert first != second
        return {"killed_after": len(closed), "rounds": len(self.rounds)}

    def wait(
        self, holds: Callable[[], bool], what: str, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        """Wait until it `holds`; SystemExit after ten minutes."""
        end = time.monotonic() + 600
        while not holds():
            if time.monotonic() > end:
                raise SystemExit(f"waited ten minutes for {what}")
            meanwhile()
            time.sleep(0.5)


def size(process: psutil.Process) -> float:
    """Resident MiB of a process."""
    return round(process.memory_info().rss / 2**20, 1)


def reachable(port: int) -> bool:
    with socket.socket() as opened:
        return opened.connect_ex(("127.0.0.1", port)) == 0


def write_settings(folder: Path) -> None:
    """Pairs and settings of every client; the last one trains on MLX."""
    lines = assets().train.read_text(encoding="utf-8").splitlines(keepends=True)
    for number in range(CLIENTS):
        pairs = lines[number * PAIRS : (number + 1) * PAIRS]
        (folder / f"pairs-{number}.jsonl").write_text("".join(pairs), encoding="utf-8")
        settings = SETTINGS | {
            "model": str(assets().model),
            "data": f"pairs-{number}.jsonl",
            "output": f"client-{number}",
            "backend": "mlx" if number == CLIENTS - 1 else "torch",
            "rounds": 100,
        }
        (folder / f"client-{number}.yaml").write_text(yaml.safe_dump(settings))


def write_keys(folder: Path) -> None:
    """A CA, a certificate of this machine that it signs, and a pair of keys for every SuperNode."""
    ca_key, key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a CA for one measurement")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    host = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    ca = certificate(ca_name, ca_name, ca_key, ca_key, x509.BasicConstraints(True, None))
    server = certificate(name, ca_name, key, ca_key, host)
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    (folder / "server.pem").write_bytes(server.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "server.key").write_bytes(key.private_bytes(pem, pkcs8, plain))
    for number in range(CLIENTS):
        node = ec.generate_private_key(ec.SECP384R1())
        (folder / f"node-{number}.key").write_bytes(
            node.private_bytes(pem, serialization.PrivateFormat.OpenSSH, plain)
        )
        (folder / f"node-{number}.pub").write_bytes(
            node.public_key().public_bytes(
                serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
            )
        )


def certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signing: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> x509.Certificate:
    """A certificate for a day."""
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        .sign(signing, hashes.SHA256())
    )


if __name__ == "__main__":
    main()
