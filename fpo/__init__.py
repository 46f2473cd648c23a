"""The Python API: each workflow as a function, its settings those of the command line.

    import fpo

    run = fpo.train(model="MODEL", data="DATA", sae="FILE", output="run")
    run.metrics, run.verdict, run.plot()
    fpo.generate(model="MODEL", adapter="run", prompt="Hello").texts

Every function takes keyword settings, a config object such as `TrainConfig`, or both; and `sink=`,
a function that is called with every `Event`. Without a sink, warnings become Python's and the rest
is silent; `print_progress` is one that prints. Whatever is wrong with settings, data or files
raises a subclass of `FpoError`: a sentence that says what was found and expected, and what to do.

Importing this package loads neither torch, MLX nor transformers; a workflow loads what it needs.
"""

import importlib
from typing import Any

_NAMES = {
    "fpo.training": ("train", "preflight", "TrainingRun"),
    "fpo.preflight_report": ("PreflightReport",),
    "fpo.evaluation": ("evaluate", "EvaluationResult"),
    "fpo.generation": ("generate", "Generation", "Completion"),
    "fpo.conversation": ("chat", "Conversation", "Reply", "ReplyFeature"),
    "fpo.serving": ("serve", "Server"),
    "fpo.reporting.workflow": ("report", "Report"),
    "fpo.answer_file": ("answer_prompts", "AnswerFile"),
    "fpo.sampling": ("sample", "SampledPairs"),
    "fpo.value_training": ("train_value", "TrainedValue"),
    "fpo.win_rates": ("judge", "JudgedAnswers"),
    "fpo.judge_choice": ("open_judge",),
    "fpo_core.judges.judge": ("Judge",),
    "fpo.comparison.workflow": ("compare", "ComparisonResult"),
    "fpo.federation.report": ("Federation",),
    "fpo.federation.workflow": ("federate",),
    "fpo.reference_pass": ("reference", "StoredReference"),
    "fpo.gguf": ("convert_gguf", "GgufResult"),
    "fpo.conversion": (
        "convert_sae",
        "convert_adapter",
        "list_saes",
        "sae_info",
        "ConvertedSae",
        "ConvertedAdapter",
        "PublishedSaes",
        "SaeInfo",
    ),
    "fpo.sae_fit": ("check_sae", "SaeFit"),
    "fpo.sae_training": ("train_sae", "forecast_sae", "SaeTraining", "TrainedSae", "SaeForecast"),
    "fpo.feature_ranking": ("rank_features", "FeatureRanking"),
    "fpo.merging": ("fuse", "FusedModel"),
    "fpo.augmentation": ("augment_data", "AugmentedData"),
    "fpo.data_inspection": ("inspect_data", "DataInspection"),
    "fpo.quickstart_run": ("quickstart", "QuickstartRun"),
    "fpo.example_inputs": ("Example", "quickstart_world"),
    "fpo.installation": ("doctor", "Installation"),
    "fpo.device_selftest": ("self_test", "SelfTest"),
    "fpo.measurements": ("Measurements",),
    "fpo.results": ("Result", "Table"),
    "fpo.sinks": ("print_progress", "warnings_only"),
    "fpo_core.events": ("Event", "Sink", "fan_out"),
    "fpo_core.config": (
        "ChatConfig",
        "AugmentConfig",
        "CompareConfig",
        "ConvertAdapterConfig",
        "ConvertConfig",
        "ConvertGgufConfig",
        "DoctorConfig",
        "EvalConfig",
        "FuseConfig",
        "GenerateConfig",
        "InspectConfig",
        "QuickstartConfig",
        "ReferenceRunConfig",
        "ReportConfig",
        "SaeCheckConfig",
        "SaeFeaturesConfig",
        "SaeInfoConfig",
        "SaeListConfig",
        "SaeTrainConfig",
        "SampleConfig",
        "ServeConfig",
        "TrainConfig",
        "ValueTrainConfig",
        "WinRateConfig",
    ),
    "fpo_core.config.federated": ("FederateConfig",),
    "fpo_core.config.yaml_file": ("read_yaml",),
    "fpo_core.errors": (
        "FpoError",
        "BackendError",
        "ConfigError",
        "DataError",
        "JudgeError",
        "LostProcessError",
        "ModelError",
        "SaeError",
        "SelfTestError",
        "StoppedError",
        "StoreError",
        "TrainingError",
        "WriteError",
    ),
}
"""What is exported, by the module that has it."""
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = list(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Load an exported name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'fpo' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
