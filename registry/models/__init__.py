from registry.models.accounts import IdempotentAnswer, Membership, Namespace, Token, User
from registry.models.adapters import Adapter, Blob, Download, Ref, Revision, RevisionFile
from registry.models.base_models import BaseModel, BaseModelAlias, BaseModelFile
from registry.models.tasks import Task, TaskRow

__all__ = [
    "Adapter",
    "BaseModel",
    "BaseModelAlias",
    "BaseModelFile",
    "Blob",
    "Download",
    "IdempotentAnswer",
    "Membership",
    "Namespace",
    "Ref",
    "Revision",
    "RevisionFile",
    "Task",
    "TaskRow",
    "Token",
    "User",
]
