"""Faults to plant in the checks themselves: each check left out must fail a test."""

STORE, CHECKPOINT, ADAPTER = (
    (f"tests/core/test_{name}_integrity.py",) for name in ("store", "checkpoint", "adapter")
)
DIGESTS, LOCK, TEXT = (
    (f"tests/core/test_{name}.py",) for name in ("digests", "lock", "foreign_text")
)
FILES, OWNERSHIP, REGULAR = (
    (f"tests/core/test_{name}.py",) for name in ("files", "ownership", "regular")
)
LEFTOVERS, DATA, GROUP = (
    (f"tests/core/test_{name}.py",) for name in ("leftovers", "data_load", "group")
)
COMMANDS = ("tests/cli/test_integrity.py",)
CUT_SHORT = ("tests/backends/test_files_cut_short.py",)
TIME_LIMIT = ("tests/core/test_time_limit.py",)
CHANGED_BASE = ("tests/cli/test_adapters.py::test_a_base_that_changed_since_is_told_of",)

CHECKS: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    (
        "no hash of any file is compared",
        "fpo_core/io/digests.py",
        "return None if known_sha256(path) == sha256 else",
        "return None if True else",
        DIGESTS,
    ),
    (
        "shards are not hashed when a store opens",
        "fpo_core/reference/shards.py",
        "for damage in damages(folder, hashed)}",
        "for damage in ()}",
        STORE,
    ),
    (
        "offsets of a shard are not checked",
        "fpo_core/reference/shards.py",
        "return None if _offsets_fit(shard) else",
        "return None if True else",
        STORE,
    ),
    (
        "a manifest's own hash is not checked",
        "fpo_core/reference/manifest.py",
        "if holds is False:",
        "if False:",
        STORE,
    ),
    (
        "features beyond the autoencoder are taken",
        "fpo_core/reference/reader.py",
        "if len(indices) and indices.max() >= d_sae:",
        "if False:",
        STORE,
    ),
    (
        "a stored pair may be stored again",
        "fpo_core/reference/writer.py",
        'if row["key"].tobytes() not in stored]',
        "if True]",
        STORE,
    ),
    (
        "batches depend on what is stored",
        "fpo_core/reference/build.py",
        "rows = _first_of_equals(split)",
        "rows = np.flatnonzero(lacking)",
        STORE,
    ),
    (
        "shards are written without the lock",
        "fpo_core/reference/writer.py",
        'with locked(self.folder, "reference", wait=_PATIENCE):',
        "if True:",
        STORE,
    ),
    (
        "a checkpoint's state has no seal",
        "fpo_core/train/checkpoints.py",
        "if seal_holds(meta) is not (None if sampled else True):",
        "if False:",
        CHECKPOINT,
    ),
    (
        "a checkpoint's files need not be listed",
        "fpo_core/train/checkpoints.py",
        "files.keys() - {POOL_FILE} != {TRAINED_FILE, OPTIMISER_FILE}",
        "False",
        CHECKPOINT,
    ),
    (
        "a checkpoint's name need not be its step",
        "fpo_core/train/checkpoints.py",
        "if found.state.step != step:",
        "if False:",
        CHECKPOINT,
    ),
    (
        "the best checkpoint is pruned",
        "fpo_core/train/checkpoints.py",
        "stay |= {state.best_step} & {*steps}",
        "stay |= set()",
        CHECKPOINT,
    ),
    (
        "checkpoints are saved while steps are skipped",
        "fpo_core/train/state.py",
        "return self.nonfinite_in_a_row > 0 or self.loss_is_far",
        "return self.loss_is_far",
        CHECKPOINT,
    ),
    (
        "checkpoints are saved when the loss has left",
        "fpo_core/train/state.py",
        "return self.nonfinite_in_a_row > 0 or self.loss_is_far",
        "return self.nonfinite_in_a_row > 0",
        CHECKPOINT,
    ),
    (
        "an adapter's weights are not hashed",
        "fpo_core/adapters/integrity.py",
        "for damage in damages(folder, {weights: expected}):",
        "for damage in ():",
        ADAPTER,
    ),
    (
        "an adapter's settings are not hashed",
        "fpo_core/adapters/integrity.py",
        'hashes.get("settings") != _settings_sha256(config)',
        "False",
        ADAPTER,
    ),
    (
        "adapters may hold NaN",
        "fpo_core/adapters/reader.py",
        "if np.isfinite(value).all():",
        "if True:",
        ADAPTER,
    ),
    (
        "the token cache is not hashed",
        "fpo_core/data/cache.py",
        'if not seal_holds(manifest) or damages(folder, manifest["files"]):',
        "if False:",
        DATA,
    ),
    (
        "the lock is not taken",
        "fpo_core/io/lock.py",
        "fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        LOCK,
    ),
    (
        "a lock outlives its process in a fork",
        "fpo_core/io/lock.py",
        "os.register_at_fork(after_in_child=_close_in_child)",
        "",
        LOCK,
    ),
    (
        "a run does not lock its output",
        "fpo/run_checks.py",
        "stack.enter_context(locked(output))",
        "pass",
        COMMANDS,
    ),
    (
        "a run may write over its inputs",
        "fpo_core/train/run_folder.py",
        "check_inputs([output / name for name in (*names, *_CARD)], inputs, folder=output)",
        "pass",
        COMMANDS,
    ),
    (
        "a run may write over files of others",
        "fpo_core/train/run_folder.py",
        "lambda _: begun)",
        "lambda _: True)",
        COMMANDS,
    ),
    (
        "links are followed",
        "fpo_core/io/ownership.py",
        "if path.is_symlink():",
        "if False:",
        OWNERSHIP,
    ),
    (
        "a folder that appeared meanwhile is replaced",
        "fpo_core/io/atomic.py",
        "with replacing(path, folders=False) as temporary:",
        "with replacing(path) as temporary:",
        FILES,
    ),
    (
        "leftovers stay",
        "fpo_core/io/atomic.py",
        "        remove_leftovers(path.parent)\n",
        "",
        FILES,
    ),
    (
        "temporaries of living processes go",
        "fpo_core/io/leftovers.py",
        "return process.is_gone is True",
        "return True",
        LEFTOVERS,
    ),
    (
        "text of others is not escaped on a terminal",
        "cli/fpo_cli/console/output.py",
        "text = for_terminal(text) if isinstance(text, str) else text",
        "text = text",
        COMMANDS,
    ),
    (
        "errors are not escaped",
        "cli/fpo_cli/main.py",
        "one_line(message)",
        "message",
        COMMANDS,
    ),
    (
        "JSON is not escaped",
        "cli/fpo_cli/console/command.py",
        'for_json(to_json({"command": self.name} | dict(values)))',
        'to_json({"command": self.name} | dict(values))',
        COMMANDS,
    ),
    (
        "Markdown is not escaped",
        "fpo_core/evaluation/model_card.py",
        "name = for_markdown(shown(base))",
        "name = shown(base)",
        ("tests/core/test_model_card.py",),
    ),
    (
        "a FIFO is waited for",
        "fpo_core/io/regular.py",
        "if not stat.S_ISREG(mode):",
        "if False:",
        REGULAR,
    ),
    (
        "JSON of any depth is taken",
        "fpo_core/io/regular.py",
        "    check_depth(value, where, fault)\n    return value\n\n\ndef read_yaml",
        "    return value\n\n\ndef read_yaml",
        REGULAR,
    ),
    (
        "processes may have other settings",
        "fpo_core/backend/process_group.py",
        "    if found:\n",
        "    if False:\n",
        GROUP,
    ),
    (
        "a file may change under a run",
        "fpo_core/io/file_array.py",
        "if version != self.version or len(array) < count:",
        "if len(array) < count:",
        ("tests/core/test_sae.py",),
    ),
    (
        "a file may be cut short under a run",
        "fpo_core/io/file_array.py",
        "if version != self.version or len(array) < count:",
        "if False:",
        ("tests/core/test_data_token_store.py",),
    ),
    (
        "weights stay in the map of their file",
        "fpo_torch/models.py",
        "weight.data = weight.data.clone()",
        "pass",
        CUT_SHORT,
    ),
    (
        "weights may change while they are read",
        "fpo_core/models/folder.py",
        "if [version_of(path.stat()) for path in self.weight_files] != before:",
        "if False:",
        CUT_SHORT,
    ),
    (
        "a chat template may take half a minute more",
        "fpo_core/data/time_limit.py",
        "if deadline < now:",
        "if deadline + 30 < now:",
        TIME_LIMIT,
    ),
    (
        "a chat template may write any length",
        "fpo_core/data/tokenizer.py",
        "if len(text) <= _CHARACTERS:",
        "if True:",
        TIME_LIMIT,
    ),
    (
        "a process that stands still is waited for",
        "fpo_core/backend/heartbeat.py",
        "if watch.silent_for() > seconds:",
        "if False:",
        ("tests/core/test_heartbeat.py",),
    ),
    (
        "generate is silent of a base that changed",
        "fpo/generation.py",
        "setup.warn_of_base(config.adapter, sink)",
        "pass",
        CHANGED_BASE,
    ),
    (
        "fuse is silent of a base that changed",
        "fpo/merging.py",
        "setup.warn_of_base(config.adapter, sink)",
        "pass",
        CHANGED_BASE,
    ),
)
"""Name, file, what it reads, what it comes to read, and the tests that look for it."""
