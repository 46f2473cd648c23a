"""Value functions: samples with rewards, TD(λ), their files, how well they foretell."""
