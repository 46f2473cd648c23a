"""Written by `make docs` from settings and docstrings; a test keeps it up to date."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Literal

from fpo.training import TrainingRun as TrainingRun
from fpo.preflight_report import PreflightReport as PreflightReport
from fpo.evaluation import EvaluationResult as EvaluationResult
from fpo.generation import Generation as Generation
from fpo.generation import Completion as Completion
from fpo.conversation import Conversation as Conversation
from fpo.conversation import Reply as Reply
from fpo.conversation import ReplyFeature as ReplyFeature
from fpo.serving import Server as Server
from fpo.reporting.workflow import Report as Report
from fpo.answer_file import AnswerFile as AnswerFile
from fpo.sampling import SampledPairs as SampledPairs
from fpo.value_training import TrainedValue as TrainedValue
from fpo.win_rates import JudgedAnswers as JudgedAnswers
from fpo.judge_choice import open_judge as open_judge
from fpo_core.judges.judge import Judge as Judge
from fpo.comparison.workflow import ComparisonResult as ComparisonResult
from fpo.federation.report import Federation as Federation
from fpo.reference_pass import StoredReference as StoredReference
from fpo.gguf import GgufResult as GgufResult
from fpo.conversion import ConvertedSae as ConvertedSae
from fpo.conversion import ConvertedAdapter as ConvertedAdapter
from fpo.conversion import PublishedSaes as PublishedSaes
from fpo.conversion import SaeInfo as SaeInfo
from fpo.sae_fit import SaeFit as SaeFit
from fpo.sae_training import SaeTraining as SaeTraining
from fpo.sae_training import TrainedSae as TrainedSae
from fpo.sae_training import SaeForecast as SaeForecast
from fpo.feature_ranking import FeatureRanking as FeatureRanking
from fpo.merging import FusedModel as FusedModel
from fpo.augmentation import AugmentedData as AugmentedData
from fpo.data_inspection import DataInspection as DataInspection
from fpo.quickstart_run import QuickstartRun as QuickstartRun
from fpo.example_inputs import Example as Example
from fpo.example_inputs import quickstart_world as quickstart_world
from fpo.installation import Installation as Installation
from fpo.device_selftest import SelfTest as SelfTest
from fpo.measurements import Measurements as Measurements
from fpo.results import Result as Result
from fpo.results import Table as Table
from fpo.sinks import print_progress as print_progress
from fpo.sinks import warnings_only as warnings_only
from fpo_core.events import Event as Event
from fpo_core.events import Sink as Sink
from fpo_core.events import fan_out as fan_out
from fpo_core.config import ChatConfig as ChatConfig
from fpo_core.config import AugmentConfig as AugmentConfig
from fpo_core.config import CompareConfig as CompareConfig
from fpo_core.config import ConvertAdapterConfig as ConvertAdapterConfig
from fpo_core.config import ConvertConfig as ConvertConfig
from fpo_core.config import ConvertGgufConfig as ConvertGgufConfig
from fpo_core.config import DoctorConfig as DoctorConfig
from fpo_core.config import EvalConfig as EvalConfig
from fpo_core.config import FuseConfig as FuseConfig
from fpo_core.config import GenerateConfig as GenerateConfig
from fpo_core.config import InspectConfig as InspectConfig
from fpo_core.config import QuickstartConfig as QuickstartConfig
from fpo_core.config import ReferenceRunConfig as ReferenceRunConfig
from fpo_core.config import ReportConfig as ReportConfig
from fpo_core.config import SaeCheckConfig as SaeCheckConfig
from fpo_core.config import SaeFeaturesConfig as SaeFeaturesConfig
from fpo_core.config import SaeInfoConfig as SaeInfoConfig
from fpo_core.config import SaeListConfig as SaeListConfig
from fpo_core.config import SaeTrainConfig as SaeTrainConfig
from fpo_core.config import SampleConfig as SampleConfig
from fpo_core.config import ServeConfig as ServeConfig
from fpo_core.config import TrainConfig as TrainConfig
from fpo_core.config import ValueTrainConfig as ValueTrainConfig
from fpo_core.config import WinRateConfig as WinRateConfig
from fpo_core.config.federated import FederateConfig as FederateConfig
from fpo_core.config.yaml_file import read_yaml as read_yaml
from fpo_core.errors import FpoError as FpoError
from fpo_core.errors import BackendError as BackendError
from fpo_core.errors import ConfigError as ConfigError
from fpo_core.errors import DataError as DataError
from fpo_core.errors import JudgeError as JudgeError
from fpo_core.errors import LostProcessError as LostProcessError
from fpo_core.errors import ModelError as ModelError
from fpo_core.errors import SaeError as SaeError
from fpo_core.errors import SelfTestError as SelfTestError
from fpo_core.errors import StoppedError as StoppedError
from fpo_core.errors import StoreError as StoreError
from fpo_core.errors import TrainingError as TrainingError
from fpo_core.errors import WriteError as WriteError

_Stop = Callable[[], int | None]
_Text = str | PathLike[str]

def quickstart(
    config: QuickstartConfig | None = None,
    *,
    sink: Sink | None = None,
    stop: _Stop | None = None,
    example: Example | None = None,
    objective: Literal['fpo', 'dpo-norm', 'dpo', 'simpo', 'simpo-kl', 'tdpo1', 'tdpo2', 'discopop', 'asft', 'orpo'] = 'fpo',
    link: Literal['logistic', 'hinge', 'exponential', 'lrml', 'aps', 'aps-quadratic', 'padll', 'cell', 'pfl'] | None = None,
    alpha: float | None = 5.0,
    beta: float | None = 70.0,
    gamma: float | None = None,
    odds_lambda: float | None = None,
    discopop_tau: float | None = None,
    aps_rho: float | None = None,
    aps_tau_min: float | None = None,
    aps_tau_max: float | None = None,
    label_smoothing: float = 0.0,
    rpo_alpha: float = 0.0,
    degree_weight: float = 0.0,
    degree_levels: int = 4,
    degree_removal: Literal['keywords', 'random'] = 'keywords',
    stop_gradient: bool = True,
    k: int = 50,
    normalize_d: bool = False,
    straight_through: bool = False,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    device: Literal['auto', 'cpu', 'cuda', 'mps', 'gpu'] = 'auto',
    dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto',
    seed: int = 3,
    output: _Text = 'fpo-quickstart',
    max_rows: int | None = None,
    learning_rate: float | None = 0.003,
    iters: int | None = 130,
    batch_size: int = 12,
    samples: int = 200,
) -> QuickstartRun:
    """Align a tiny model that ships with the package, end to end, in about a minute.

    Converts the embedded world's autoencoder, builds the reference store, trains, and measures and
    samples the model before and after. Needs no network. `example` takes another model's place;
    its settings hold where the call sets nothing.
    """

def inspect_data(
    config: InspectConfig | None = None,
    *,
    sink: Sink | None = None,
    data: _Text = ...,
    columns: Sequence[_Text] | _Text | None = None,
    template_date: _Text | None = None,
    valid_fraction: float = 0.0,
    max_seq_length: int = 1024,
    max_prompt_length: int | None = None,
    truncation: Literal['drop', 'cut', 'keep-end'] = 'cut',
    strict: bool = False,
    max_rows: int | None = None,
    cache: _Text | None = None,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    model: _Text = ...,
    revision: _Text | None = None,
    trust_remote_code: bool = False,
    seed: int = 0,
    split: Literal['train', 'valid'] = 'train',
    start: int = 0,
    rows: int = 1,
) -> DataInspection:
    """Tokens of pairs with prompt, completion and padding marked, and counts of all rows.

    Completion tokens are those that are scored. Raises DataError where there is no such pair.
    """

def augment_data(
    config: AugmentConfig | None = None,
    *,
    sink: Sink | None = None,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    data: _Text = ...,
    out: _Text = ...,
    columns: Sequence[_Text] | _Text | None = None,
    scores: Sequence[_Text] | _Text | None = None,
    judge: Literal['columns', 'world'] = 'columns',
    scale: _Text = '1:10',
    swap: bool = True,
    goal_role: Literal['user', 'system'] = 'user',
    goal_text: _Text = 'Answer with a quality of {goal} on a scale from {low} to {high}.',
    valid_fraction: float = 0.05,
    max_rows: int | None = None,
    seed: int = 0,
) -> AugmentedData:
    """Write each pair as two rows, whose prompts ask for the score of one side and of the other.

    The row that asks for the rejected side's score prefers it. Prompts are held out before rows are
    doubled. Scores of a judge other than the world's go into columns first. Raises DataError where
    no pair has two different scores, or a score is off the scale.
    """

def list_saes(
    config: SaeListConfig | None = None,
    *,
    sink: Sink | None = None,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    model: _Text = ...,
    num_layers: int = -1,
    rows: int = 40,
) -> PublishedSaes:
    """Published autoencoders that fit a model, the recommended one first, then by fitness.

    Pass a source to `convert_sae`. Fit is what was trained on the model itself, on its residual
    stream, deep, with about 16,384 features of which about 100 fire. Recommended is the fittest of
    the residual stream that reads what the trained blocks write.
    """

def convert_sae(
    config: ConvertConfig | None = None,
    *,
    sink: Sink | None = None,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    source: _Text = ...,
    out: _Text = ...,
    to: Literal['fpo', 'sae-lens'] = 'fpo',
    format: _Text | None = None,
    dtype: Literal['float32', 'float16', 'bfloat16'] = 'float32',
    encoder_only: bool = False,
    verify: bool = True,
    norm_factor: float | None = None,
    centre: bool | None = None,
    k: int | None = None,
    hook: _Text | None = None,
    model_name: _Text | None = None,
    untrained_tokens: Sequence[_Text] | _Text | None = None,
) -> ConvertedSae:
    """Convert a sparse autoencoder to the one file that training reads.

    The format is recognised; settings state what a checkpoint leaves out or gets wrong. With
    `to="sae-lens"`, `source` is such a file and `out` a new folder that SAELens opens. Raises
    SaeError for what cannot be converted, or does not compute what the source's formula does.
    """

def sae_info(
    config: SaeInfoConfig | None = None,
    *,
    sink: Sink | None = None,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    file: _Text = ...,
    verify: bool = False,
) -> SaeInfo:
    """What a converted autoencoder is, and where it came from.
    """

def train_sae(
    config: SaeTrainConfig | None = None,
    *,
    sink: Sink | None = None,
    stop: _Stop | None = None,
    layer: Sequence[_Text] | _Text | None = None,
    site: Literal['resid_pre', 'resid_mid', 'resid_post', 'attn_out', 'mlp_out', 'mlp_in', 'z'] = 'resid_post',
    architecture: Literal['batchtopk', 'topk'] = 'batchtopk',
    matryoshka: int = 1,
    d_sae: int | None = None,
    k: int | None = None,
    tokens: int | None = None,
    batch_tokens: int = 2048,
    learning_rate: float | None = None,
    data: _Text | None = None,
    text: _Text | None = None,
    columns: Sequence[_Text] | _Text | None = None,
    max_rows: int | None = None,
    max_seq_length: int = 512,
    valid_fraction: float = 0.05,
    cache: _Text | None = None,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    device: Literal['auto', 'cpu', 'cuda', 'mps', 'gpu'] = 'auto',
    dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto',
    seed: int = 0,
    model: _Text = ...,
    revision: _Text | None = None,
    trust_remote_code: bool = False,
    output: _Text = ...,
    save_dtype: Literal['float32', 'float16', 'bfloat16'] = 'float32',
    memory: int = 1024,
    tokens_per_batch: int = 2048,
    steps_per_report: int = 50,
    save_every: int = 500,
    resume: bool = False,
    dry_run: bool = False,
    process_timeout: float = 120.0,
) -> SaeTraining:
    """Train sparse autoencoders on a model's activations at your pairs and texts.

    The result is a file, or one per layer, that `train` takes as `sae`, with a threshold set on
    held-out texts, and measurements on other ones. `stop` is asked between two steps: a number in
    place of None saves a checkpoint and raises StoppedError, and `resume=True` goes on from there.
    Raises other FpoErrors for whatever is wrong with the settings, data or files.
    """

def forecast_sae(
    config: SaeTrainConfig | None = None,
    *,
    sink: Sink | None = None,
    layer: Sequence[_Text] | _Text | None = None,
    site: Literal['resid_pre', 'resid_mid', 'resid_post', 'attn_out', 'mlp_out', 'mlp_in', 'z'] = 'resid_post',
    architecture: Literal['batchtopk', 'topk'] = 'batchtopk',
    matryoshka: int = 1,
    d_sae: int | None = None,
    k: int | None = None,
    tokens: int | None = None,
    batch_tokens: int = 2048,
    learning_rate: float | None = None,
    data: _Text | None = None,
    text: _Text | None = None,
    columns: Sequence[_Text] | _Text | None = None,
    max_rows: int | None = None,
    max_seq_length: int = 512,
    valid_fraction: float = 0.05,
    cache: _Text | None = None,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    device: Literal['auto', 'cpu', 'cuda', 'mps', 'gpu'] = 'auto',
    dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto',
    seed: int = 0,
    model: _Text = ...,
    revision: _Text | None = None,
    trust_remote_code: bool = False,
    output: _Text = ...,
    save_dtype: Literal['float32', 'float16', 'bfloat16'] = 'float32',
    memory: int = 1024,
    tokens_per_batch: int = 2048,
    steps_per_report: int = 50,
    save_every: int = 500,
    resume: bool = False,
    dry_run: bool = False,
    process_timeout: float = 120.0,
) -> SaeForecast:
    """Try a run on its largest forward batch and a few steps: its time, memory and disk.
    """

def check_sae(
    config: SaeCheckConfig | None = None,
    *,
    sink: Sink | None = None,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    device: Literal['auto', 'cpu', 'cuda', 'mps', 'gpu'] = 'auto',
    dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto',
    seed: int = 0,
    sae: _Text = ...,
    model: _Text = ...,
    data: _Text = ...,
    hook: _Text | None = None,
    rows: int = 64,
    max_seq_length: int = 512,
    revision: _Text | None = None,
    trust_remote_code: bool = False,
) -> SaeFit:
    """Measure how well an autoencoder explains a model on your data, and judge whether it fits.

    The first pairs are read twice: as raw text, and under the model's chat template. Raises
    SaeError for a file without decoder, or one that does not fit the model's shape.
    """

def rank_features(
    config: SaeFeaturesConfig | None = None,
    *,
    sink: Sink | None = None,
    sae: Sequence[_Text] | _Text | None = None,
    hook: Sequence[_Text] | _Text | None = None,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    device: Literal['auto', 'cpu', 'cuda', 'mps', 'gpu'] = 'auto',
    dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto',
    seed: int = 0,
    model: _Text = ...,
    adapter: _Text | None = None,
    revision: _Text | None = None,
    trust_remote_code: bool = False,
    positive: _Text = ...,
    negative: _Text = ...,
    out: _Text | None = None,
    top: int = 20,
    absolute: bool = False,
    weight: float = 1.0,
    report: _Text | None = None,
    max_seq_length: int = 1024,
    tokens_per_batch: int = 8192,
) -> FeatureRanking:
    """Rank features by how much more they fire on one set of texts than on another.

    The difference is that of mean features. With `out`, the first `top` of them become a file for
    the setting `feature_weights` of `train`, whose D compares just these. Raises SaeError where no
    feature fires more on the positive texts.
    """

def reference(
    config: ReferenceRunConfig | None = None,
    *,
    sink: Sink | None = None,
    plain: bool = False,
    logits_budget: int = 256,
    compile: bool = False,
    cache_limit: int | None = None,
    reference: _Text | None = None,
    feature_cap: int = 1024,
    feature_dtype: Literal['float16', 'float32'] = 'float32',
    tokens_per_batch: int = 8192,
    rows_per_shard: int = 2048,
    sae: Sequence[_Text] | _Text | None = None,
    hook: Sequence[_Text] | _Text | None = None,
    data: _Text = ...,
    columns: Sequence[_Text] | _Text | None = None,
    template_date: _Text | None = None,
    valid_fraction: float = 0.0,
    max_seq_length: int = 1024,
    max_prompt_length: int | None = None,
    truncation: Literal['drop', 'cut', 'keep-end'] = 'cut',
    strict: bool = False,
    max_rows: int | None = None,
    cache: _Text | None = None,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    device: Literal['auto', 'cpu', 'cuda', 'mps', 'gpu'] = 'auto',
    dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto',
    seed: int = 0,
    model: _Text = ...,
    adapter: _Text | None = None,
    revision: _Text | None = None,
    trust_remote_code: bool = False,
) -> StoredReference:
    """Run the frozen model once over all pairs, and store what it computes.

    `train` does this by itself where needed; a store built here can be shared between runs. Stopped
    at any point, the same call goes on from where it was. Without `reference` the store lies in the
    cache, where `train` and `evaluate` find it.
    """

def preflight(
    config: TrainConfig | None = None,
    *,
    sink: Sink | None = None,
    judge: _Text | None = None,
    judge_model: _Text | None = None,
    judge_template: _Text = 'alpaca',
    judge_key_env: _Text = 'OPENAI_API_KEY',
    judge_concurrency: int = 8,
    judge_timeout: float = 60.0,
    judge_retries: int = 5,
    verdicts: _Text | None = None,
    sampler: Literal['backend', 'vllm'] = 'backend',
    vllm_memory: float = 0.4,
    online: Literal['plain', 'ddp', 'dpp', 'dpr'] | None = None,
    online_share: float | None = None,
    online_weight: float | None = None,
    online_every: int = 8,
    online_tokens: int = 64,
    online_temperature: float = 1.0,
    push_to_hub: _Text | None = None,
    report: bool = True,
    shown_pairs: int = 64,
    shown_features: int = 100,
    val_pairs: int = 256,
    text: _Text | None = None,
    greedy_answers: int = 3,
    prompts: _Text | None = None,
    answer_tokens: int = 32,
    output: _Text = ...,
    batch_size: int = 4,
    group_prompts: bool = False,
    grad_accumulation_steps: int = 1,
    epochs: float | None = None,
    iters: int | None = None,
    grad_checkpoint: bool = False,
    shard: bool = False,
    cpu_offload: bool = False,
    steps_per_report: int = 10,
    steps_per_eval: int | None = None,
    best_metric: Literal['loss', 'rewards/accuracies', 'rewards/margins', 'fpo/raw_accuracy'] = 'loss',
    early_stopping: int | None = None,
    max_perplexity: float | None = None,
    max_kl: float | None = None,
    save_every: int | None = None,
    preflight: bool = True,
    yes: bool = False,
    dry_run: bool = False,
    save_total_limit: int = 2,
    resume: bool = False,
    process_timeout: float = 120.0,
    allow_change: Sequence[_Text] | _Text | None = None,
    report_to: Sequence[_Text] | _Text | None = None,
    nonfinite_limit: int = 5,
    step0_pairs: int = 16,
    optimizer: Literal['adamw', 'adafactor', 'lion', 'lozo', 'lozo-m', 'mezo'] = 'adamw',
    learning_rate: float | None = None,
    weight_decay: float = 0.0,
    warmup: float = 0.1,
    schedule: Literal['constant', 'cosine', 'linear'] = 'cosine',
    max_grad_norm: float = 1.0,
    zo_rank: int | None = None,
    zo_interval: int | None = None,
    zo_epsilon: float | None = None,
    zo_momentum: float | None = None,
    fine_tune_type: Literal['lora', 'dora', 'full', 'prompt', 'prefix'] = 'lora',
    num_layers: int = -1,
    rank: int = 8,
    scale: float = 2.0,
    dropout: float = 0.0,
    target_modules: Sequence[_Text] | _Text | None = None,
    freeze_a: bool = False,
    virtual_tokens: int = 8,
    plain: bool = False,
    logits_budget: int = 256,
    compile: bool = False,
    cache_limit: int | None = None,
    reference: _Text | None = None,
    feature_cap: int = 1024,
    feature_dtype: Literal['float16', 'float32'] = 'float32',
    tokens_per_batch: int = 8192,
    rows_per_shard: int = 2048,
    constraint_share: float | None = None,
    objective: Literal['fpo', 'dpo-norm', 'dpo', 'simpo', 'simpo-kl', 'tdpo1', 'tdpo2', 'discopop', 'asft', 'orpo'] = 'fpo',
    link: Literal['logistic', 'hinge', 'exponential', 'lrml', 'aps', 'aps-quadratic', 'padll', 'cell', 'pfl'] | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    gamma: float | None = None,
    odds_lambda: float | None = None,
    discopop_tau: float | None = None,
    aps_rho: float | None = None,
    aps_tau_min: float | None = None,
    aps_tau_max: float | None = None,
    label_smoothing: float = 0.0,
    rpo_alpha: float = 0.0,
    degree_weight: float = 0.0,
    degree_levels: int = 4,
    degree_removal: Literal['keywords', 'random'] = 'keywords',
    stop_gradient: bool = True,
    k: int = 50,
    normalize_d: bool = True,
    straight_through: bool = False,
    sae: Sequence[_Text] | _Text | None = None,
    hook: Sequence[_Text] | _Text | None = None,
    feature_weights: _Text | None = None,
    data: _Text = ...,
    columns: Sequence[_Text] | _Text | None = None,
    template_date: _Text | None = None,
    valid_fraction: float = 0.0,
    max_seq_length: int = 1024,
    max_prompt_length: int | None = None,
    truncation: Literal['drop', 'cut', 'keep-end'] = 'cut',
    strict: bool = False,
    max_rows: int | None = None,
    cache: _Text | None = None,
    preset: Literal['default', 'gentle', 'paper', 'paper-control', 'none'] = 'default',
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    device: Literal['auto', 'cpu', 'cuda', 'mps', 'gpu'] = 'auto',
    dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto',
    seed: int = 0,
    model: _Text = ...,
    adapter: _Text | None = None,
    revision: _Text | None = None,
    trust_remote_code: bool = False,
) -> PreflightReport:
    """Try a run's largest batches: its memory, time and disk. Trains and writes nothing.
    """

def train(
    config: TrainConfig | None = None,
    *,
    sink: Sink | None = None,
    stop: _Stop | None = None,
    by: Judge | Callable[[str, str], float] | None = None,
    judge: _Text | None = None,
    judge_model: _Text | None = None,
    judge_template: _Text = 'alpaca',
    judge_key_env: _Text = 'OPENAI_API_KEY',
    judge_concurrency: int = 8,
    judge_timeout: float = 60.0,
    judge_retries: int = 5,
    verdicts: _Text | None = None,
    sampler: Literal['backend', 'vllm'] = 'backend',
    vllm_memory: float = 0.4,
    online: Literal['plain', 'ddp', 'dpp', 'dpr'] | None = None,
    online_share: float | None = None,
    online_weight: float | None = None,
    online_every: int = 8,
    online_tokens: int = 64,
    online_temperature: float = 1.0,
    push_to_hub: _Text | None = None,
    report: bool = True,
    shown_pairs: int = 64,
    shown_features: int = 100,
    val_pairs: int = 256,
    text: _Text | None = None,
    greedy_answers: int = 3,
    prompts: _Text | None = None,
    answer_tokens: int = 32,
    output: _Text = ...,
    batch_size: int = 4,
    group_prompts: bool = False,
    grad_accumulation_steps: int = 1,
    epochs: float | None = None,
    iters: int | None = None,
    grad_checkpoint: bool = False,
    shard: bool = False,
    cpu_offload: bool = False,
    steps_per_report: int = 10,
    steps_per_eval: int | None = None,
    best_metric: Literal['loss', 'rewards/accuracies', 'rewards/margins', 'fpo/raw_accuracy'] = 'loss',
    early_stopping: int | None = None,
    max_perplexity: float | None = None,
    max_kl: float | None = None,
    save_every: int | None = None,
    preflight: bool = True,
    yes: bool = False,
    dry_run: bool = False,
    save_total_limit: int = 2,
    resume: bool = False,
    process_timeout: float = 120.0,
    allow_change: Sequence[_Text] | _Text | None = None,
    report_to: Sequence[_Text] | _Text | None = None,
    nonfinite_limit: int = 5,
    step0_pairs: int = 16,
    optimizer: Literal['adamw', 'adafactor', 'lion', 'lozo', 'lozo-m', 'mezo'] = 'adamw',
    learning_rate: float | None = None,
    weight_decay: float = 0.0,
    warmup: float = 0.1,
    schedule: Literal['constant', 'cosine', 'linear'] = 'cosine',
    max_grad_norm: float = 1.0,
    zo_rank: int | None = None,
    zo_interval: int | None = None,
    zo_epsilon: float | None = None,
    zo_momentum: float | None = None,
    fine_tune_type: Literal['lora', 'dora', 'full', 'prompt', 'prefix'] = 'lora',
    num_layers: int = -1,
    rank: int = 8,
    scale: float = 2.0,
    dropout: float = 0.0,
    target_modules: Sequence[_Text] | _Text | None = None,
    freeze_a: bool = False,
    virtual_tokens: int = 8,
    plain: bool = False,
    logits_budget: int = 256,
    compile: bool = False,
    cache_limit: int | None = None,
    reference: _Text | None = None,
    feature_cap: int = 1024,
    feature_dtype: Literal['float16', 'float32'] = 'float32',
    tokens_per_batch: int = 8192,
    rows_per_shard: int = 2048,
    constraint_share: float | None = None,
    objective: Literal['fpo', 'dpo-norm', 'dpo', 'simpo', 'simpo-kl', 'tdpo1', 'tdpo2', 'discopop', 'asft', 'orpo'] = 'fpo',
    link: Literal['logistic', 'hinge', 'exponential', 'lrml', 'aps', 'aps-quadratic', 'padll', 'cell', 'pfl'] | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    gamma: float | None = None,
    odds_lambda: float | None = None,
    discopop_tau: float | None = None,
    aps_rho: float | None = None,
    aps_tau_min: float | None = None,
    aps_tau_max: float | None = None,
    label_smoothing: float = 0.0,
    rpo_alpha: float = 0.0,
    degree_weight: float = 0.0,
    degree_levels: int = 4,
    degree_removal: Literal['keywords', 'random'] = 'keywords',
    stop_gradient: bool = True,
    k: int = 50,
    normalize_d: bool = True,
    straight_through: bool = False,
    sae: Sequence[_Text] | _Text | None = None,
    hook: Sequence[_Text] | _Text | None = None,
    feature_weights: _Text | None = None,
    data: _Text = ...,
    columns: Sequence[_Text] | _Text | None = None,
    template_date: _Text | None = None,
    valid_fraction: float = 0.0,
    max_seq_length: int = 1024,
    max_prompt_length: int | None = None,
    truncation: Literal['drop', 'cut', 'keep-end'] = 'cut',
    strict: bool = False,
    max_rows: int | None = None,
    cache: _Text | None = None,
    preset: Literal['default', 'gentle', 'paper', 'paper-control', 'none'] = 'default',
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    device: Literal['auto', 'cpu', 'cuda', 'mps', 'gpu'] = 'auto',
    dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto',
    seed: int = 0,
    model: _Text = ...,
    adapter: _Text | None = None,
    revision: _Text | None = None,
    trust_remote_code: bool = False,
) -> TrainingRun:
    """Align a model with FPO, or another objective, on preference pairs.

    Finds, extends or builds the stored reference pass, trains, and measures start and end on
    held-out pairs. Everything lies in `output` afterwards. A KeyboardInterrupt, as by stopping a
    notebook's cell, leaves every checkpoint and the store whole: call again with `resume=True`.

    `stop` is asked between two steps: a number in place of None saves a checkpoint and raises
    StoppedError. `by` is a judge of fresh samples, or a function of a prompt and a completion, in
    place of the setting. Raises other FpoErrors for whatever is wrong with the settings, data or
    files.
    """

def report(
    config: ReportConfig | None = None,
    *,
    sink: Sink | None = None,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    device: Literal['auto', 'cpu', 'cuda', 'mps', 'gpu'] = 'auto',
    dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto',
    seed: int = 0,
    runs: Sequence[_Text] | _Text = ...,
    output: _Text | None = None,
    shown_pairs: int | None = None,
    shown_features: int | None = None,
) -> Report:
    """Make the page of a run, or of several side by side, as one HTML file that loads nothing.

    Of a run it shows verdict, measurements, curves, held-out pairs token by token, samples and the
    features that moved; of several, accuracy against KL, a table and the settings that differ. What
    a run left is enough; where it left nothing, or more is asked for, the model is read again.
    Raises ConfigError for a folder that no run made.
    """

def evaluate(
    config: EvalConfig | None = None,
    *,
    sink: Sink | None = None,
    value: Sequence[_Text] | _Text | None = None,
    value_beta: Sequence[_Text] | _Text | None = None,
    value_top_k: int = 20,
    judge: _Text | None = None,
    judge_model: _Text | None = None,
    judge_template: _Text = 'alpaca',
    judge_key_env: _Text = 'OPENAI_API_KEY',
    judge_concurrency: int = 8,
    judge_timeout: float = 60.0,
    judge_retries: int = 5,
    verdicts: _Text | None = None,
    max_tokens: int = 64,
    temperature: float = 1.0,
    top_p: float = 1.0,
    val_pairs: int = 256,
    text: _Text | None = None,
    greedy_answers: int = 3,
    prompts: _Text | None = None,
    answer_tokens: int = 32,
    plain: bool = False,
    logits_budget: int = 256,
    compile: bool = False,
    cache_limit: int | None = None,
    reference: _Text | None = None,
    feature_cap: int = 1024,
    feature_dtype: Literal['float16', 'float32'] = 'float32',
    tokens_per_batch: int = 8192,
    rows_per_shard: int = 2048,
    objective: Literal['fpo', 'dpo-norm', 'dpo', 'simpo', 'simpo-kl', 'tdpo1', 'tdpo2', 'discopop', 'asft', 'orpo'] = 'fpo',
    link: Literal['logistic', 'hinge', 'exponential', 'lrml', 'aps', 'aps-quadratic', 'padll', 'cell', 'pfl'] | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    gamma: float | None = None,
    odds_lambda: float | None = None,
    discopop_tau: float | None = None,
    aps_rho: float | None = None,
    aps_tau_min: float | None = None,
    aps_tau_max: float | None = None,
    label_smoothing: float = 0.0,
    rpo_alpha: float = 0.0,
    degree_weight: float = 0.0,
    degree_levels: int = 4,
    degree_removal: Literal['keywords', 'random'] = 'keywords',
    stop_gradient: bool = True,
    k: int = 50,
    normalize_d: bool = True,
    straight_through: bool = False,
    sae: Sequence[_Text] | _Text | None = None,
    hook: Sequence[_Text] | _Text | None = None,
    feature_weights: _Text | None = None,
    data: _Text = ...,
    columns: Sequence[_Text] | _Text | None = None,
    template_date: _Text | None = None,
    valid_fraction: float = 0.0,
    max_seq_length: int = 1024,
    max_prompt_length: int | None = None,
    truncation: Literal['drop', 'cut', 'keep-end'] = 'cut',
    strict: bool = False,
    max_rows: int | None = None,
    cache: _Text | None = None,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    device: Literal['auto', 'cpu', 'cuda', 'mps', 'gpu'] = 'auto',
    dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto',
    seed: int = 0,
    model: _Text = ...,
    adapter: _Text | None = None,
    revision: _Text | None = None,
    trust_remote_code: bool = False,
    base: _Text | None = None,
    base_adapter: _Text | None = None,
    goal: float | None = None,
    samples: int = 16,
) -> EvaluationResult:
    """Measure a model on held-out pairs, texts and its own samples.

    With `adapter`, the adapted model is compared with `model` under it, or with that under
    `base_adapter`; a whole `model` with `base`. Alone, only the model's own numbers are taken. With
    `value`, its samples are weighed by values and those of the other are not; pairs, texts and
    questions are measured without values.
    """

def generate(
    config: GenerateConfig | None = None,
    *,
    sink: Sink | None = None,
    value: Sequence[_Text] | _Text | None = None,
    value_beta: Sequence[_Text] | _Text | None = None,
    value_top_k: int = 20,
    sampler: Literal['backend', 'vllm'] = 'backend',
    vllm_memory: float = 0.4,
    max_tokens: int = 64,
    temperature: float = 1.0,
    top_p: float = 1.0,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    device: Literal['auto', 'cpu', 'cuda', 'mps', 'gpu'] = 'auto',
    dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto',
    seed: int = 0,
    model: _Text = ...,
    adapter: _Text | None = None,
    revision: _Text | None = None,
    trust_remote_code: bool = False,
    prompts: _Text | None = None,
    system_prompt: _Text | None = None,
    ignore_chat_template: bool = False,
    goal: float | None = None,
    samples: int = 1,
    batch_size: int = 16,
    prompt: _Text | None = None,
    out: _Text | None = None,
) -> Generation:
    """Let a model answer a prompt, with or without an adapter; `answer_prompts` takes a file.

    The prompt is a user message in the tokenizer's own chat template, where it has one. The sink
    hears each completion as it comes, in events of the kind `text`.
    """

def answer_prompts(
    config: GenerateConfig | None = None,
    *,
    sink: Sink | None = None,
    value: Sequence[_Text] | _Text | None = None,
    value_beta: Sequence[_Text] | _Text | None = None,
    value_top_k: int = 20,
    sampler: Literal['backend', 'vllm'] = 'backend',
    vllm_memory: float = 0.4,
    max_tokens: int = 64,
    temperature: float = 1.0,
    top_p: float = 1.0,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    device: Literal['auto', 'cpu', 'cuda', 'mps', 'gpu'] = 'auto',
    dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto',
    seed: int = 0,
    model: _Text = ...,
    adapter: _Text | None = None,
    revision: _Text | None = None,
    trust_remote_code: bool = False,
    prompts: _Text | None = None,
    system_prompt: _Text | None = None,
    ignore_chat_template: bool = False,
    goal: float | None = None,
    samples: int = 1,
    batch_size: int = 16,
    prompt: _Text | None = None,
    out: _Text | None = None,
) -> AnswerFile:
    """Let a model answer every prompt of a file, batch by batch, with or without an adapter.

    Each prompt is a user message, as in `generate`. Answers are appended to `out`; stopped at
    any point, the same call goes on. Raises ConfigError where `out` holds anything else than
    answers to these prompts under these settings.
    """

def sample(
    config: SampleConfig | None = None,
    *,
    sink: Sink | None = None,
    by: Judge | Callable[[str, str], float] | None = None,
    judge: _Text | None = None,
    judge_model: _Text | None = None,
    judge_template: _Text = 'alpaca',
    judge_key_env: _Text = 'OPENAI_API_KEY',
    judge_concurrency: int = 8,
    judge_timeout: float = 60.0,
    judge_retries: int = 5,
    verdicts: _Text | None = None,
    value: Sequence[_Text] | _Text | None = None,
    value_beta: Sequence[_Text] | _Text | None = None,
    value_top_k: int = 20,
    sampler: Literal['backend', 'vllm'] = 'backend',
    vllm_memory: float = 0.4,
    max_tokens: int = 64,
    temperature: float = 1.0,
    top_p: float = 1.0,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    device: Literal['auto', 'cpu', 'cuda', 'mps', 'gpu'] = 'auto',
    dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto',
    seed: int = 0,
    model: _Text = ...,
    adapter: _Text | None = None,
    revision: _Text | None = None,
    trust_remote_code: bool = False,
    prompts: _Text = ...,
    system_prompt: _Text | None = None,
    ignore_chat_template: bool = False,
    goal: float | None = None,
    samples: int = 4,
    batch_size: int = 16,
    output: _Text = ...,
    cache: _Text | None = None,
) -> SampledPairs:
    """Sample several answers to each prompt; the best and the worst by a judge make a pair.

    Pairs are conversations where there is a chat template, else texts, with `score_chosen` and
    `score_rejected`: training and augmentation read them. Samples and scores are appended to a file
    beside `output` batch by batch; stopped at any point, the same call goes on there and judges
    nothing twice. `by` is a judge, or a function of a prompt and a completion, in place of the
    setting. Raises JudgeError where the judge fails.
    """

def train_value(
    config: ValueTrainConfig | None = None,
    *,
    sink: Sink | None = None,
    by: Judge | Callable[[str, str], float] | None = None,
    optimizer: Literal['adamw', 'adafactor', 'lion', 'lozo', 'lozo-m', 'mezo'] = 'adamw',
    learning_rate: float | None = None,
    weight_decay: float = 0.0,
    warmup: float = 0.1,
    schedule: Literal['constant', 'cosine', 'linear'] = 'cosine',
    max_grad_norm: float = 1.0,
    zo_rank: int | None = None,
    zo_interval: int | None = None,
    zo_epsilon: float | None = None,
    zo_momentum: float | None = None,
    fine_tune_type: Literal['lora', 'dora', 'full', 'prompt', 'prefix'] = 'lora',
    num_layers: int = -1,
    rank: int = 8,
    scale: float = 2.0,
    dropout: float = 0.0,
    target_modules: Sequence[_Text] | _Text | None = None,
    freeze_a: bool = False,
    virtual_tokens: int = 8,
    judge: _Text | None = None,
    judge_model: _Text | None = None,
    judge_template: _Text = 'alpaca',
    judge_key_env: _Text = 'OPENAI_API_KEY',
    judge_concurrency: int = 8,
    judge_timeout: float = 60.0,
    judge_retries: int = 5,
    verdicts: _Text | None = None,
    max_tokens: int = 256,
    temperature: float = 1.0,
    top_p: float = 1.0,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    device: Literal['auto', 'cpu', 'cuda', 'mps', 'gpu'] = 'auto',
    dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto',
    seed: int = 0,
    model: _Text = ...,
    adapter: _Text | None = None,
    revision: _Text | None = None,
    trust_remote_code: bool = False,
    prompts: _Text = ...,
    system_prompt: _Text | None = None,
    ignore_chat_template: bool = False,
    goal: float | None = None,
    samples: int = 8,
    batch_size: int = 16,
    output: _Text = ...,
    value_lambda: float = 0.95,
    value_batch: int = 32,
    epochs: float = 2.0,
    tokens_per_batch: int = 8192,
    valid_fraction: float = 0.1,
    cache: _Text | None = None,
) -> TrainedValue:
    """Train a value function of a model: the reward that a text is expected to end with.

    Samples of the model, with or without an adapter, are judged and kept in `output` batch by
    batch: stopped there, the same call goes on and judges nothing twice; stopped in training, it
    trains again. The result is an adapter with a head, which `generate`, `sample` and `evaluate`
    take as `value`. `by` is a judge, or a function of a prompt and a completion, in place of the
    setting. Raises JudgeError where the judge fails, ConfigError where there is nothing to learn.
    """

def judge(
    config: WinRateConfig | None = None,
    *,
    sink: Sink | None = None,
    by: Judge | Callable[[str, str], float] | None = None,
    judge: _Text | None = None,
    judge_model: _Text | None = None,
    judge_template: _Text = 'alpaca',
    judge_key_env: _Text = 'OPENAI_API_KEY',
    judge_concurrency: int = 8,
    judge_timeout: float = 60.0,
    judge_retries: int = 5,
    verdicts: _Text | None = None,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    device: Literal['auto', 'cpu', 'cuda', 'mps', 'gpu'] = 'auto',
    dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto',
    seed: int = 0,
    answers: _Text = ...,
    baseline: _Text | None = None,
    out: _Text | None = None,
    export: Sequence[_Text] | _Text | None = None,
    cache: _Text | None = None,
    dry_run: bool = False,
    price_in: float = 0.0,
    price_out: float = 0.0,
) -> JudgedAnswers:
    """Judge the answers of a file: their mean score, or how often they win against a baseline.

    Win rates stand as they are and controlled for length, with intervals over prompts. `by` is a
    judge, or a function of a prompt and a completion, in place of the setting. Raises DataError
    where the files answer different prompts, JudgeError where the judge fails.
    """

def chat(
    config: ChatConfig | None = None,
    *,
    sink: Sink | None = None,
    max_tokens: int = 256,
    temperature: float = 1.0,
    top_p: float = 1.0,
    sae: Sequence[_Text] | _Text | None = None,
    hook: Sequence[_Text] | _Text | None = None,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    device: Literal['auto', 'cpu', 'cuda', 'mps', 'gpu'] = 'auto',
    dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto',
    seed: int = 0,
    model: _Text = ...,
    adapter: _Text | None = None,
    revision: _Text | None = None,
    trust_remote_code: bool = False,
    other_adapter: _Text | None = None,
    system_prompt: _Text | None = None,
    top_features: int = 8,
) -> Conversation:
    """Open a conversation with a model, with or without an adapter, and one to compare it with.

    Messages go through the tokenizer's chat template; without one, the turns are one text that goes
    on. Both models are one set of weights with two adapters, so a comparison holds no second model.
    """

def serve(
    config: ServeConfig | None = None,
    *,
    sink: Sink | None = None,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    device: Literal['auto', 'cpu', 'cuda', 'mps', 'gpu'] = 'auto',
    dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto',
    seed: int = 0,
    model: _Text = ...,
    adapter: _Text | None = None,
    revision: _Text | None = None,
    trust_remote_code: bool = False,
    host: _Text = '127.0.0.1',
    port: int = 8000,
) -> Server:
    """Prepare to serve a model, with its adapter, through the backend's own server.

    `with server.running():` starts mlx_lm.server, or transformers serve. A request names
    `default_model`, the model with its adapter, or `base`, the bare one. Raises BackendError where
    the server's libraries are not installed, ConfigError for what it cannot load.
    """

def federate(
    config: FederateConfig | None = None,
    *,
    sink: Sink | None = None,
    judge: _Text | None = None,
    judge_model: _Text | None = None,
    judge_template: _Text = 'alpaca',
    judge_key_env: _Text = 'OPENAI_API_KEY',
    judge_concurrency: int = 8,
    judge_timeout: float = 60.0,
    judge_retries: int = 5,
    verdicts: _Text | None = None,
    sampler: Literal['backend', 'vllm'] = 'backend',
    vllm_memory: float = 0.4,
    online: Literal['plain', 'ddp', 'dpp', 'dpr'] | None = None,
    online_share: float | None = None,
    online_weight: float | None = None,
    online_every: int = 8,
    online_tokens: int = 64,
    online_temperature: float = 1.0,
    push_to_hub: _Text | None = None,
    report: bool = True,
    shown_pairs: int = 64,
    shown_features: int = 100,
    val_pairs: int = 256,
    text: _Text | None = None,
    greedy_answers: int = 3,
    prompts: _Text | None = None,
    answer_tokens: int = 32,
    output: _Text = ...,
    batch_size: int = 4,
    group_prompts: bool = False,
    grad_accumulation_steps: int = 1,
    epochs: float | None = None,
    iters: int | None = None,
    grad_checkpoint: bool = False,
    shard: bool = False,
    cpu_offload: bool = False,
    steps_per_report: int = 10,
    steps_per_eval: int | None = None,
    best_metric: Literal['loss', 'rewards/accuracies', 'rewards/margins', 'fpo/raw_accuracy'] = 'loss',
    early_stopping: int | None = None,
    max_perplexity: float | None = None,
    max_kl: float | None = None,
    save_every: int | None = None,
    preflight: bool = True,
    yes: bool = False,
    dry_run: bool = False,
    save_total_limit: int = 2,
    resume: bool = False,
    process_timeout: float = 120.0,
    allow_change: Sequence[_Text] | _Text | None = None,
    report_to: Sequence[_Text] | _Text | None = None,
    nonfinite_limit: int = 5,
    step0_pairs: int = 16,
    optimizer: Literal['adamw', 'adafactor', 'lion', 'lozo', 'lozo-m', 'mezo'] = 'adamw',
    learning_rate: float | None = None,
    weight_decay: float = 0.0,
    warmup: float = 0.1,
    schedule: Literal['constant', 'cosine', 'linear'] = 'cosine',
    max_grad_norm: float = 1.0,
    zo_rank: int | None = None,
    zo_interval: int | None = None,
    zo_epsilon: float | None = None,
    zo_momentum: float | None = None,
    fine_tune_type: Literal['lora', 'dora', 'full', 'prompt', 'prefix'] = 'lora',
    num_layers: int = -1,
    rank: int = 8,
    scale: float = 2.0,
    dropout: float = 0.0,
    target_modules: Sequence[_Text] | _Text | None = None,
    freeze_a: bool = True,
    virtual_tokens: int = 8,
    plain: bool = False,
    logits_budget: int = 256,
    compile: bool = False,
    cache_limit: int | None = None,
    reference: _Text | None = None,
    feature_cap: int = 1024,
    feature_dtype: Literal['float16', 'float32'] = 'float32',
    tokens_per_batch: int = 8192,
    rows_per_shard: int = 2048,
    constraint_share: float | None = None,
    objective: Literal['fpo', 'dpo-norm', 'dpo', 'simpo', 'simpo-kl', 'tdpo1', 'tdpo2', 'discopop', 'asft', 'orpo'] = 'fpo',
    link: Literal['logistic', 'hinge', 'exponential', 'lrml', 'aps', 'aps-quadratic', 'padll', 'cell', 'pfl'] | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    gamma: float | None = None,
    odds_lambda: float | None = None,
    discopop_tau: float | None = None,
    aps_rho: float | None = None,
    aps_tau_min: float | None = None,
    aps_tau_max: float | None = None,
    label_smoothing: float = 0.0,
    rpo_alpha: float = 0.0,
    degree_weight: float = 0.0,
    degree_levels: int = 4,
    degree_removal: Literal['keywords', 'random'] = 'keywords',
    stop_gradient: bool = True,
    k: int = 50,
    normalize_d: bool = True,
    straight_through: bool = False,
    sae: Sequence[_Text] | _Text | None = None,
    hook: Sequence[_Text] | _Text | None = None,
    feature_weights: _Text | None = None,
    data: _Text = ...,
    columns: Sequence[_Text] | _Text | None = None,
    template_date: _Text | None = None,
    valid_fraction: float = 0.0,
    max_seq_length: int = 1024,
    max_prompt_length: int | None = None,
    truncation: Literal['drop', 'cut', 'keep-end'] = 'cut',
    strict: bool = False,
    max_rows: int | None = None,
    cache: _Text | None = None,
    preset: Literal['default', 'gentle', 'paper', 'paper-control', 'none'] = 'default',
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    device: Literal['auto', 'cpu', 'cuda', 'mps', 'gpu'] = 'auto',
    dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto',
    seed: int = 0,
    model: _Text = ...,
    adapter: _Text | None = None,
    revision: _Text | None = None,
    trust_remote_code: bool = False,
    strategy: Literal['fedavg', 'fedavgm', 'fedadam', 'fedprox', 'fedpeptao'] = 'fedavg',
    clients: int = 4,
    client_share: float = 1.0,
    rounds: int = 5,
    local_iters: int = 10,
    partition: _Text = 'even',
    by: Judge | Callable[[str, str], float] | None = None,
    layers: Literal['all', 'score', 'random'] = 'all',
    layer_share: float = 0.5,
    server_learning_rate: float | None = None,
    server_momentum: float = 0.9,
    round_timeout: float = 3600.0,
    proximal_mu: float = 0.1,
    secure_aggregation: bool = False,
    reconstruction_threshold: float = 0.67,
    clipping_range: float = 8.0,
    max_pairs: int = 1000,
) -> Federation:
    """Align one model on the pairs of several simulated clients, which exchange adapters alone.

    Divides a file of pairs, then alternates: some clients take steps on their own pairs from the
    server's weights, the server makes the next weights of theirs. `output` holds every round, so
    `resume` goes on after the last one. A client that fails or sends what it should not is left out
    of its round by name. Simulation protects nothing; docs/federated.md says what a deployment on
    Flower does. Raises BackendError without Flower, ConfigError or DataError for bad settings.
    """

def compare(
    config: CompareConfig | None = None,
    *,
    sink: Sink | None = None,
    stop: _Stop | None = None,
    example: Example | None = None,
    judge: _Text | None = None,
    judge_model: _Text | None = None,
    judge_template: _Text = 'alpaca',
    judge_key_env: _Text = 'OPENAI_API_KEY',
    judge_concurrency: int = 8,
    judge_timeout: float = 60.0,
    judge_retries: int = 5,
    verdicts: _Text | None = None,
    output: _Text = 'fpo-compare',
    settings: _Text | None = None,
    objectives: Sequence[_Text] | _Text | None = None,
    grid: Sequence[_Text] | _Text | None = None,
    seeds: Sequence[_Text] | _Text = ('0',),
    eval_pairs: int = 100,
    samples: int = 64,
    max_tokens: int = 64,
    temperature: float = 1.0,
    report: bool = True,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    device: Literal['auto', 'cpu', 'cuda', 'mps', 'gpu'] = 'auto',
    dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto',
) -> ComparisonResult:
    """Train objectives, or any grid over settings, from one stored reference, and compare them.

    Every run has the same seeds and batches. Writes compare.md, .csv, .json and .png into `output`:
    accuracy, diversity, drift, time and memory, with their spread over seeds. Stopped at any point,
    the same call goes on: finished runs are read, a begun one resumes.

    Without `settings`, the runs are on the quickstart's world, or on an `example`; its own grid
    counts for what the settings do not vary.
    """

def fuse(
    config: FuseConfig | None = None,
    *,
    sink: Sink | None = None,
    push_to_hub: _Text | None = None,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    device: Literal['auto', 'cpu', 'cuda', 'mps', 'gpu'] = 'auto',
    dtype: Literal['auto', 'float32', 'bfloat16'] = 'auto',
    seed: int = 0,
    model: _Text = ...,
    adapter: _Text | None = None,
    revision: _Text | None = None,
    trust_remote_code: bool = False,
    out: _Text = ...,
    save_dtype: Literal['auto', 'base', 'float32', 'float16', 'bfloat16'] = 'auto',
) -> FusedModel:
    """Merge an adapter into its model, for transformers and mlx-lm alike.

    The result appears only if its logits on a probe are those of model and adapter; ModelError
    says by how much they differ. A base that mlx-lm quantised is dequantised.
    """

def convert_adapter(
    config: ConvertAdapterConfig | None = None,
    *,
    sink: Sink | None = None,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    source: _Text = ...,
    out: _Text = ...,
    to: Literal['peft', 'mlx', 'both'] = 'both',
    model: _Text | None = None,
) -> ConvertedAdapter:
    """Convert an adapter of PEFT's or mlx-lm's into a folder that the other, or both, open.

    LoRA, DoRA, rsLoRA and ranks or strengths per module; what only one library has raises
    ModelError.
    """

def convert_gguf(
    config: ConvertGgufConfig | None = None,
    *,
    sink: Sink | None = None,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    source: _Text = ...,
    out: _Text = ...,
    outtype: Literal['f32', 'f16', 'bf16', 'q8_0'] = 'f16',
    llama_cpp: _Text | None = None,
) -> GgufResult:
    """Hand a model folder, such as a merged one, to llama.cpp's converter, if it is installed.

    It is looked for in `llama_cpp`, in $LLAMA_CPP and on the PATH. Raises ModelError for an
    adapter, which must be merged first, and where the converter fails.
    """

def doctor(
    config: DoctorConfig | None = None,
    *,
    sink: Sink | None = None,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    device: Literal['auto', 'cpu', 'cuda', 'mps', 'gpu'] = 'auto',
    self_test: bool = False,
    clean: bool = False,
    cache: _Text | None = None,
) -> Installation:
    """Which backends, devices and versions are here, and how to get what is missing.

    With `self_test`, each installed backend computes golden values, a gradient and three training
    steps on its device. Raises BackendError where `backend` names one that is not installed; a
    failed self-test raises nothing, look at `passed`.
    """

def self_test(
    config: DoctorConfig | None = None,
    *,
    sink: Sink | None = None,
    backend: Literal['auto', 'mlx', 'torch'] = 'auto',
    device: Literal['auto', 'cpu', 'cuda', 'mps', 'gpu'] = 'auto',
    self_test: bool = False,
    clean: bool = False,
    cache: _Text | None = None,
) -> SelfTest:
    """Replay golden values, a gradient and three training steps on the device, in float32.

    `backend="auto"` tests the one that would be chosen. Look at `passed`: nothing is raised for a
    check that fails.
    """
