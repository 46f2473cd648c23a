"""Many runs from one stored reference, side by side."""
