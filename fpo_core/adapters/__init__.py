"""LoRA and DoRA adapters: shapes, files, merging."""
