"""What an optimizer really does, found out by experiments on a small copy of it."""

from __future__ import annotations

from lightball.optim.auditing.audited import Audited, audit_json
from lightball.optim.auditing.auditor import audit
from lightball.optim.auditing.checkpoint import audit_checkpoint
from lightball.optim.auditing.words import audit_text

__all__ = ["Audited", "audit", "audit_checkpoint", "audit_json", "audit_text"]
