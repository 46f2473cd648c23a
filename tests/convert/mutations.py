"""Mutated checkpoints: every one is refused with SaeError, or means the very same autoencoder."""

import json
import shutil
from pathlib import Path

import numpy as np

from fpo_convert.sae import convert_sae, sae_info
from fpo_core.errors import SaeError
from fpo_core.sae.sae import load_sae
from tests.convert.sae_files import cfg_v6, save_sae_lens, weights

FINITE, REFUSED, SAME = "finite payload change", "refused", "same"


class Fuzzer:
    """A sound source and a sound canonical file in `folder`, and random faults planted in both."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.folder = folder
        self.source = save_sae_lens(folder / "in", weights(threshold=True), cfg_v6("jumprelu"))
        self.weights_file = self.source / "sae_weights.safetensors"
        self.config_file = self.source / "cfg.json"
        self.sound = self.weights_file.read_bytes()
        self.config = self.config_file.read_bytes()
        self.baseline = convert_sae(self.source, folder / "canonical")
        self.canonical = (folder / "canonical").read_bytes()
        self.reference = load_sae(folder / "canonical")
        self.out = folder / "out"
        self.out.mkdir()
        self.scratch = folder / "mutated"

    def run(self, count: int) -> dict[str, int]:
        """Plant `count` faults, raise AssertionError on the first one handled wrongly."""
        kinds = (
            self.source_structure,
            self.source_payload_nonfinite,
            self.canonical_structure,
            self.canonical_payload,
            self.configuration,
        )
        outcomes: dict[str, int] = {}
        for number in range(count):
            kind = kinds[number % len(kinds)]
            key = f"{kind.__name__}: {kind()}"
            outcomes[key] = outcomes.get(key, 0) + 1
        return outcomes

    def source_structure(self) -> str:
        self.weights_file.write_bytes(self.mutate_structure(self.sound))
        outcome = self.convert()
        self.weights_file.write_bytes(self.sound)
        assert outcome != FINITE
        return outcome

    def source_payload_nonfinite(self) -> str:
        data = bytearray(self.sound)
        begin = payload_begin(data)
        position = begin + 4 * int(self.rng.integers((len(data) - begin) // 4))
        bad = self.rng.choice([np.nan, np.inf, -np.inf])
        data[position : position + 4] = np.float32(bad).tobytes()
        self.weights_file.write_bytes(data)
        outcome = self.convert()
        self.weights_file.write_bytes(self.sound)
        assert outcome == REFUSED
        return outcome

    def canonical_structure(self) -> str:
        return self.load(self.mutate_structure(self.canonical))

    def canonical_payload(self) -> str:
        data = bytearray(self.canonical)
        position = int(self.rng.integers(payload_begin(data), len(data)))
        data[position] ^= int(self.rng.integers(1, 256))
        outcome = self.load(bytes(data))
        assert outcome == REFUSED
        try:
            sae_info(self.scratch, verify=True)
        except SaeError:
            return outcome
        raise AssertionError("sae info --verify accepted a changed payload")

    def configuration(self) -> str:
        self.config_file.write_bytes(self.mutate_bytes(self.config))
        outcome = self.convert()
        self.config_file.write_bytes(self.config)
        return outcome

    def convert(self) -> str:
        target = self.out / "sae"
        try:
            report = convert_sae(self.source, target, verify=False)
        except SaeError:
            assert not list(self.out.iterdir())
            return REFUSED
        target.unlink()
        return SAME if report.payload_sha256 == self.baseline.payload_sha256 else FINITE

    def load(self, data: bytes) -> str:
        self.scratch.write_bytes(data)
        try:
            sae = load_sae(self.scratch)
        except SaeError:
            return REFUSED
        for name, array in self.reference.arrays().items():
            np.testing.assert_array_equal(array, sae.arrays()[name])
        assert (sae.architecture, sae.hook, sae.d_in) == (
            self.reference.architecture,
            self.reference.hook,
            self.reference.d_in,
        )
        return SAME

    def mutate_structure(self, data: bytes) -> bytes:
        begin = payload_begin(data)
        choice = int(self.rng.integers(6))
        if choice == 0:
            return data[: int(self.rng.integers(len(data)))]
        if choice == 1:
            return data + self.rng.bytes(int(self.rng.integers(1, 64)))
        if choice == 2:
            return self.mutate_bytes(data[:8]) + data[8:]
        header = data[8:begin]
        header = self.mutate_bytes(header) if choice < 5 else self.mutate_json(header)
        if choice == 3:
            return data[:8] + header + data[begin:]
        return len(header).to_bytes(8, "little") + header + data[begin:]

    def mutate_bytes(self, data: bytes) -> bytes:
        mutated = bytearray(data)
        for _ in range(int(self.rng.integers(1, 4))):
            position = int(self.rng.integers(len(mutated)))
            choice = int(self.rng.integers(4))
            if choice == 0:
                mutated[position] ^= 1 << int(self.rng.integers(8))
            elif choice == 1:
                mutated[position] = int(self.rng.choice(list(b'0123456789"{}[]:,.-eE \\\xff')))
            elif choice == 2:
                mutated[position:position] = self.rng.bytes(1)
            else:
                del mutated[position : position + int(self.rng.integers(1, 9))]
            if not mutated:
                break
        return bytes(mutated)

    def mutate_json(self, header: bytes) -> bytes:
        values = json.loads(header)
        name = str(self.rng.choice([key for key in values if key != "__metadata__"]))
        odd = [
            None,
            True,
            -1,
            1.5,
            1 << 80,
            "x",
            [],
            [0],
            {},
            [[0, 1]],
            "F16",
            "BF16",
            "I32",
            1e999,
        ]
        choice = int(self.rng.integers(4))
        if choice == 0:
            field = str(self.rng.choice(["dtype", "shape", "data_offsets"]))
            values[name][field] = odd[int(self.rng.integers(len(odd)))]
        elif choice == 1:
            values[name + "x"] = values.pop(name)
        elif choice == 2:
            values["extra"] = odd[int(self.rng.integers(len(odd)))]
        else:
            field = str(self.rng.choice(["shape", "data_offsets"]))
            at = int(self.rng.integers(len(values[name][field])))
            values[name][field][at] += int(self.rng.integers(-40, 41)) or 1
        return json.dumps(values).encode()

    def close(self) -> None:
        shutil.rmtree(self.folder)


def payload_begin(data: bytes | bytearray) -> int:
    return 8 + int.from_bytes(data[:8], "little")
