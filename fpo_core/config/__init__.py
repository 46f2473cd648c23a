"""Every setting of every command: its name, default, bounds and meaning, and nowhere else.

Option names and YAML keys are the field names. A command's settings are the union of the groups it
inherits, so a function can ask for just the group it needs.
"""

from fpo_core.config.inputs import BackendConfig, DataConfig, FeatureConfig, ModelConfig, SaeConfig
from fpo_core.config.judging import JudgeConfig, WinRateConfig
from fpo_core.config.link_table import LINKS, Link
from fpo_core.config.objective import ObjectiveConfig
from fpo_core.config.objective_table import OBJECTIVES, Objective
from fpo_core.config.presets import LEARNING, PAPER
from fpo_core.config.runs import (
    ChatConfig,
    CompareConfig,
    EvalConfig,
    FuseConfig,
    GenerateConfig,
    PromptConfig,
    QuickstartConfig,
    ReferenceRunConfig,
    ReportConfig,
    SampleConfig,
    ServeConfig,
    TrainConfig,
    ValueTrainConfig,
)
from fpo_core.config.sae_training import SaeTrainConfig
from fpo_core.config.tools import (
    AugmentConfig,
    ConvertAdapterConfig,
    ConvertConfig,
    ConvertGgufConfig,
    DoctorConfig,
    InspectConfig,
    NoModelConfig,
    SaeCheckConfig,
    SaeFeaturesConfig,
    SaeInfoConfig,
    SaeListConfig,
)
from fpo_core.config.training import (
    AdapterConfig,
    LoopConfig,
    MeasureConfig,
    OptimiserConfig,
    ReferenceConfig,
    ReportedConfig,
    SamplerConfig,
    SamplingConfig,
    StepConfig,
    ValueConfig,
)

__all__ = [
    "LEARNING",
    "LINKS",
    "OBJECTIVES",
    "PAPER",
    "AdapterConfig",
    "AugmentConfig",
    "BackendConfig",
    "ChatConfig",
    "CompareConfig",
    "ConvertAdapterConfig",
    "ConvertConfig",
    "ConvertGgufConfig",
    "DataConfig",
    "DoctorConfig",
    "EvalConfig",
    "FeatureConfig",
    "FuseConfig",
    "GenerateConfig",
    "InspectConfig",
    "JudgeConfig",
    "Link",
    "LoopConfig",
    "MeasureConfig",
    "ModelConfig",
    "NoModelConfig",
    "Objective",
    "ObjectiveConfig",
    "OptimiserConfig",
    "PromptConfig",
    "QuickstartConfig",
    "ReferenceConfig",
    "ReferenceRunConfig",
    "ReportConfig",
    "ReportedConfig",
    "SaeCheckConfig",
    "SaeConfig",
    "SaeFeaturesConfig",
    "SaeInfoConfig",
    "SaeListConfig",
    "SaeTrainConfig",
    "SampleConfig",
    "SamplerConfig",
    "SamplingConfig",
    "ServeConfig",
    "StepConfig",
    "TrainConfig",
    "ValueConfig",
    "ValueTrainConfig",
    "WinRateConfig",
]
