"""Parts of the packed step that have a gradient or an attention of their own on torch.

head            log π of scored tokens, without the logits of a batch
features        pooled features c̄, without the (N, d_sae) array
lora            a linear layer with its adapter as one function
mlp             a gated MLP that saves its factors alone
elementwise     RMS norms and rotary positions in few passes over memory
packed_attention  how a row's layout reaches the model's attention
run_attention   attention over a row, prompt by prompt and completion by completion
flex_row        the same as one FlexAttention call, on CUDA

benchmarks/README.md has a table of a step with each and without it.
"""
