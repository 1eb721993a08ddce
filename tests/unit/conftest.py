"""No servers here. Hypothesis has no deadline: how long an example takes says more about the machine than about us."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("fanfold", deadline=None)
settings.load_profile("fanfold")
