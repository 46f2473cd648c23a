"""Files on disk: one safetensors codec, atomic writes, hashes, the hub."""
