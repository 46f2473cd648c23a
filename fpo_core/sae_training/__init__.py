"""Training sparse autoencoders on a model's own activations: `fpo sae train`."""
