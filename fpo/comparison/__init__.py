"""`fpo compare`: many runs from one stored reference, side by side."""
