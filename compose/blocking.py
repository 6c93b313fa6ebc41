"""What is computed for somebody who is blocked ends, whether it waits or runs: what workers do is for the others."""

from __future__ import annotations

import logging

from compose import errands, jobs
from registry.models import User

logger = logging.getLogger(__name__)
WHY = "This ended because the account was blocked by the people who run this site."


def end_work_for(person: User) -> None:
    """End this person's compositions and errands now. A worker that is at one of them finds that it lost it."""
    compositions, small = jobs.end_all_of(person, WHY), errands.end_all_of(person, WHY)
    if compositions or small:
        logger.info("ended for %s, who is blocked: %d compositions, %d errands", person, compositions, small)
