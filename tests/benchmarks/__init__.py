"""`make bench`: every figure beside a baseline and a limit measured in the same run. Nothing here is a test."""
