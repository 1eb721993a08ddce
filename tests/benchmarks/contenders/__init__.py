"""What is compared: each a program of its own, written and tuned as a competent user would."""
