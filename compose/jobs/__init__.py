"""Every change of a composition's status, each one conditional UPDATE: the row count says who won.

    queued -> running -> succeeded | failed | cancelled

The row is the truth and the broker only a doorbell: a message says "look at the queue", whatever it is lost,
doubled or late. A worker holds a composition by a lease that it renews; `sweep` takes back what lost its worker.
`attempt` grows with each claim, and a worker's writes name the attempt they belong to, so that one which was given
up for dead and wakes again changes nothing.

asking.py: what a request comes to. owning.py: what its owner may do with it. queue.py: who is next, and claiming.
holding.py: what the worker that holds it writes. worth.py: what boards order it by. sweeping.py: taking back. losses.py:
what is known of workers that were lost. lease.py: what these share.
workers.py: which workers there are. forgetting.py: what is not kept for ever.
log.py: what happened, in words. telling.py: the mail to its owner when it has ended.
"""

from compose.jobs.asking import (
    DEFAULT_METHOD,
    DEFAULT_SEED,
    MAX_SEED,
    USUAL_BUDGETS,
    CompositionRequest,
    check_metric,
    check_settings,
    check_tokens,
    dry_run,
    estimate,
    metric_for,
    plan_for,
    refused,
    request_composition,
    untold_title,
    usual_budget,
)
from compose.jobs.forgetting import ended, forget_texts, forget_texts_of, remove
from compose.jobs.holding import (
    beat,
    confirm_cancelled,
    fail,
    finish,
    give_up,
    keep,
    kept,
    leave_out,
    record_audition,
    record_trials,
    recorded_trials,
    release,
    release_all,
    set_base_commit,
    set_stage,
    set_step,
    wish,
)
from compose.jobs.owning import cancel, end_all_of, require_owner, share, stop, unshare, visible_composition
from compose.jobs.queue import (
    Room,
    claim,
    claim_next,
    is_held_back,
    queue_order,
    queue_place,
    ring,
    ring_next,
    room,
)
from compose.jobs.sweeping import sweep
from compose.jobs.telling import can_mail, tell_owners
from compose.jobs.worth import write_what_is_missing

__all__ = [
    "DEFAULT_METHOD",
    "DEFAULT_SEED",
    "MAX_SEED",
    "USUAL_BUDGETS",
    "CompositionRequest",
    "Room",
    "beat",
    "can_mail",
    "cancel",
    "check_metric",
    "check_settings",
    "check_tokens",
    "claim",
    "claim_next",
    "confirm_cancelled",
    "dry_run",
    "end_all_of",
    "ended",
    "estimate",
    "fail",
    "finish",
    "forget_texts",
    "forget_texts_of",
    "give_up",
    "is_held_back",
    "keep",
    "kept",
    "leave_out",
    "metric_for",
    "plan_for",
    "queue_order",
    "queue_place",
    "record_audition",
    "record_trials",
    "recorded_trials",
    "refused",
    "release",
    "release_all",
    "remove",
    "request_composition",
    "require_owner",
    "ring",
    "ring_next",
    "room",
    "set_base_commit",
    "set_stage",
    "set_step",
    "share",
    "stop",
    "sweep",
    "tell_owners",
    "unshare",
    "untold_title",
    "usual_budget",
    "visible_composition",
    "wish",
    "write_what_is_missing",
]
