"""The keys that SAELens of any era writes into cfg.json, by what they do to the encoder."""

_UNDERSTOOD = """
activation_fn activation_fn_kwargs apply_b_dec_to_input architecture d_in d_out d_sae
finetuning_scaling_factor hook_head_index hook_name k normalize_activations postact_fn
rescale_acts_by_decoder_norm reshape_activations seqpos_slice signed
"""
UNDERSTOOD = frozenset(_UNDERSTOOD.split())
"""Obeyed or refused, by their names in version 6."""

_METADATA = """
exclude_special_tokens fpo_centred fpo_untrained_tokens fpo_without_value_bias hf_hook_name
hook_head_index hook_name
model_from_pretrained_kwargs model_name neuronpedia_id prepend_bos sae_lens_training_version
sae_lens_version seqpos_slice training_architecture training_architecture_details
"""
METADATA = frozenset(_METADATA.split())
"""About the model and the training: under `metadata` in version 6, at the top before."""

_METADATA_IGNORED = """
context_size dataset_path dataset_trust_remote_code disable_concat_sequences
hf_hook_name_out hook_head_index_out hook_layer hook_layer_out hook_name_out model_class_name
l0 num_dead_features sequence_separator_token
"""
METADATA_IGNORED = frozenset(_METADATA_IGNORED.split())

# Settings of training, of its data and of its log, of every release from 0.5 to 6.54.
_IGNORED = """
act_store_device activations_mixing_fraction adam_beta1 adam_beta2 autocast autocast_lm
aux_loss_coefficient b_dec_init_method batches_in_buffer cached_activations_path cfg_overrides
checkpoint_path compile_llm compile_sae d_sae_override data dead_feature_threshold
dead_feature_window decay_steps decoder_heuristic_init decoder_heuristic_init_norm
decoder_init_norm decoder_orthogonal_init device dtype eval_batch_size_prompts
eval_every_n_wandb_logs exclude_bos_between_sequences expansion_factor feature_sampling_window
finetuning_method finetuning_tokens fisher_lambda_term from_pretrained_path hook_eval
hook_point_eval hook_point_layer include_final_checkpoint
init_encoder_as_decoder_transpose is_dataset_tokenized jumprelu_bandwidth
jumprelu_init_threshold jumprelu_kernel jumprelu_sparsity_loss_mode jumprelu_ste_to_input
jumprelu_tanh_scale l0_coefficient l0_lambda l0_warm_up_steps l1_coefficient l1_warm_up_steps
layer_override llm_compilation_mode llm_device log_activations_store_to_wandb
log_optimizer_state_to_wandb log_to_wandb log_weights_to_wandb logger logging lp_norm lr
lr_decay_steps lr_end lr_scheduler_name lr_warm_up_steps matryoshka_widths max_iterations
model_batch_size model_kwargs mse_loss_normalization n_batches_for_norm_estimate
n_batches_in_buffer n_checkpoints n_eval_batches n_restart_cycles
noise_scale normalize_sae_decoder output_path pre_act_loss_coefficient prefetch_llm_batches
residual_threshold resume resume_from_checkpoint run_name sae sae_compilation_mode saes
save_final_checkpoint scale_sparsity_penalty_by_decoder_norm seed sparse_intermediate
sparsity_coefficient sparsity_penalty_decoder_norm_lp_norm store_batch_size_prompts streaming
target_l0 threshold tokenizer_name tokens_in_buffer tokens_per_buffer topk_threshold_lr
total_training_samples total_training_steps train_batch_size_samples train_batch_size_tokens
training_tokens use_cached_activations use_chat_formatting use_fisher use_ghost_grads
use_matryoshka_aux_loss use_sparse_activations verbose wandb_entity wandb_id
wandb_log_frequency wandb_project warm_up_steps
"""
IGNORED = METADATA_IGNORED | frozenset(_IGNORED.split())
