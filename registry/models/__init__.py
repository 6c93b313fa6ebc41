from registry.models.accounts import IdempotentAnswer, Invitation, Membership, Namespace, Token, User
from registry.models.adapters import (
    Adapter,
    Blob,
    Download,
    FormerName,
    Like,
    Ref,
    Revision,
    RevisionFile,
    SentBlob,
)
from registry.models.base_models import BaseModel, BaseModelAlias, BaseModelFile
from registry.models.finding import AdapterScore, AdapterText, SavedSearch, SearchClock, SearchRow
from registry.models.following import Delivery, Follow, NewsMail, Webhook
from registry.models.hub_jobs import HubJob, ImportItem, ImportJob, JobStatus, Origin, PushJob
from registry.models.moderation import AuditEntry, Report
from registry.models.statistics import WeightStatistics
from registry.models.tasks import Task, TaskRevision, TaskRow

__all__ = [
    "Adapter",
    "AdapterScore",
    "AdapterText",
    "AuditEntry",
    "BaseModel",
    "BaseModelAlias",
    "BaseModelFile",
    "Blob",
    "Delivery",
    "Download",
    "Follow",
    "FormerName",
    "HubJob",
    "IdempotentAnswer",
    "ImportItem",
    "ImportJob",
    "Invitation",
    "JobStatus",
    "Like",
    "Membership",
    "Namespace",
    "NewsMail",
    "Origin",
    "PushJob",
    "Ref",
    "Report",
    "Revision",
    "RevisionFile",
    "SavedSearch",
    "SearchClock",
    "SearchRow",
    "SentBlob",
    "Task",
    "TaskRevision",
    "TaskRow",
    "Token",
    "User",
    "Webhook",
    "WeightStatistics",
]
