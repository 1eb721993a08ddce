"""Holding a topic against the tables: is every task that was published accounted for?"""

from __future__ import annotations

from fanfold_consumer.audit.auditor import Auditor
from fanfold_consumer.audit.errors import AuditRefused
from fanfold_consumer.audit.findings import Finding, Report
from fanfold_consumer.audit.progress import Passed
from fanfold_consumer.audit.scope import Scope

__all__ = ["AuditRefused", "Auditor", "Finding", "Passed", "Report", "Scope"]
