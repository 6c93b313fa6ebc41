from registry.models.accounts import IdempotentAnswer, Membership, Namespace, Token, User
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
from registry.models.tasks import Task, TaskRow

__all__ = [
    "Adapter",
    "BaseModel",
    "BaseModelAlias",
    "BaseModelFile",
    "Blob",
    "Download",
    "FormerName",
    "IdempotentAnswer",
    "Like",
    "Membership",
    "Namespace",
    "Ref",
    "Revision",
    "RevisionFile",
    "SentBlob",
    "Task",
    "TaskRow",
    "Token",
    "User",
]
