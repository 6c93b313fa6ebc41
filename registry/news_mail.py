"""A mail of what is new to whoever wants it, once a day at most: of what they follow, and in the searches they keep."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from allauth.account.models import EmailAddress
from django.conf import settings
from django.core import signing
from django.db.models import Exists, OuterRef, QuerySet, Value
from django.db.models.expressions import Combinable
from django.http import QueryDict
from django.urls import reverse
from django.utils import timezone
from django.utils.text import Truncator

from registry import following, long_work, search
from registry.models import NewsMail, SavedSearch, User
from registry.search import AdapterQuery, BadParameter
from web import mail
from web.errors import DomainError, NotFound

EVERY = timedelta(days=1)
# What is published just now may not be there for others yet; it is told the next time.
SETTLED_AFTER = timedelta(minutes=5)
AT_ONCE = 100
NAMED = 10  # under each heading
LOOKED_AT = 200
SALT = "no more mails of what is new"

_telling = threading.Lock()


class NoMail(DomainError):
    code = "no_mail"


@dataclass(frozen=True)
class Item:
    """One adapter that is new, or has a new version."""

    name: str
    path: str
    about: str


@dataclass(frozen=True)
class Part:
    """What is new under one heading, and where all of it is."""

    heading: str
    items: list[Item]
    path: str


def is_wanted(user: User) -> bool:
    return NewsMail.objects.filter(user=user).exists()


def has_confirmed_address(user: User) -> bool:
    """Whether these mails can go out: anybody may give a stranger's address, and what they name is said in them."""
    return _confirmed(Value(user.pk), Value(user.email)).exists()


def _confirmed(user: Combinable, email: Combinable) -> QuerySet[EmailAddress]:
    return EmailAddress.objects.filter(user=user, email__iexact=email, verified=True)


def begin(user: User, *, origin: str) -> None:
    """Mail what is new from now on; twice is once. `origin` is the address of this site. Raises NoMail."""
    if not mail.is_sent():
        raise NoMail("This site sends no mail. The feed of a person or a list tells what is new as well.")
    if not user.email:
        raise NoMail("Your account has no e-mail address to send to. Add one in your settings first.")
    if not has_confirmed_address(user):
        raise NoMail("Confirm your e-mail address first, by the link in the mail that went to it.")
    NewsMail.objects.get_or_create(user=user, defaults={"origin": origin[:200]})


def end(user: User) -> None:
    """No more of these mails; fine also where there were none."""
    NewsMail.objects.filter(user=user).delete()


def key_of(user: User) -> str:
    """What lets its holder end these mails, and nothing else."""
    return signing.dumps(user.pk, salt=SALT)


def person_of(key: str) -> User:
    """Whose mails the key ends. Raises NotFound."""
    try:
        person = User.objects.filter(pk=signing.loads(key, salt=SALT)).first()
    except signing.BadSignature:
        person = None
    if person is None:
        raise NotFound(
            "This is no link of a mail of ours, or the account is gone. Copy the whole link out of the mail."
        )
    return person


def tell() -> int:
    """Send what is due: how many mails the server took. Two that run at once send each mail once."""
    with long_work.alone(_telling) as may_tell:
        return _round() if may_tell and mail.is_sent() else 0


def _round() -> int:
    until = timezone.now() - SETTLED_AFTER
    due = NewsMail.objects.filter(
        Exists(_confirmed(OuterRef("user_id"), OuterRef("user__email"))),
        told_until__lte=until - EVERY,
        user__is_active=True,
    )
    sent = 0
    # In no order, so that one which is not taken for now does not stand before the others each time.
    for asked in due.select_related("user").order_by("?")[:AT_ONCE]:
        since = asked.told_until
        # Taken first, sent then: a mail twice is worse than one that waits for the next round.
        if not NewsMail.objects.filter(pk=asked.pk, told_until=since).update(told_until=until):
            continue
        parts = news_of(asked.user, since=since, until=until)
        if not parts:
            continue
        try:
            is_taken = _send(asked, parts)
        except mail.AddressRefused:
            continue  # asked again, it would be refused again
        if not is_taken:
            NewsMail.objects.filter(pk=asked.pk, told_until=until).update(told_until=since)
            break  # each of the others would wait as long for the same server
        sent += 1
    return sent


def news_of(person: User, *, since: datetime, until: datetime) -> list[Part]:
    """What others published in that time, each adapter once; empty if there is nothing."""
    parts = [_followed(person, since, until)]
    told = {item.path for item in parts[0].items}
    for saved in SavedSearch.objects.filter(user=person):
        parts.append(_found(person, saved, since, until, told))
        told |= {item.path for item in parts[-1].items}
    return [part for part in parts if part.items]


def _followed(person: User, since: datetime, until: datetime) -> Part:
    # The types know no alias.
    renewed = following.adapters_followed_by(person).filter(renewed_at__gt=since)
    versions = following.versions_of(renewed).filter(new_since__gt=since, new_since__lte=until)  # type: ignore[misc]
    items: dict[int, Item] = {}
    for version in versions.exclude(author=person)[:LOOKED_AT]:
        adapter = version.adapter
        item = Item(adapter.full_name, adapter.get_absolute_url(), _one_line(version.as_news))
        items.setdefault(adapter.pk, item)  # of several versions the newest
    return Part("New of what you follow", list(items.values()), reverse("following"))


def _found(person: User, saved: SavedSearch, since: datetime, until: datetime, told: set[str]) -> Part:
    path = f"{reverse('modules')}?{saved.parameters}"
    try:
        query = AdapterQuery.parse(QueryDict(saved.parameters))
        found = search.find(replace(query, sort="new", cursor="", limit=LOOKED_AT), person=person)
    except BadParameter:  # of a task that is gone; the list itself says so
        return Part("", [], path)
    # Names that are merely like the words are a help to whoever looks, and no news.
    new = [] if found.is_similar else [one for one in found.items if since < one.published_at <= until]
    items = [
        Item(adapter.full_name, adapter.get_absolute_url(), _one_line(adapter.description))
        for adapter in new
        if adapter.created_by_id != person.pk and adapter.get_absolute_url() not in told
    ]
    return Part(f"New in your saved search “{saved.name}”", items, path)


def _one_line(text: str) -> str:
    return Truncator(" ".join(text.split())).chars(120)


def _send(asked: NewsMail, parts: list[Part]) -> bool:
    stop = f"{asked.origin}{reverse('mail_no_news', args=[key_of(asked.user)])}"
    return mail.send(
        _subject(parts),
        _text(asked.origin, parts, stop),
        to=asked.user.email,
        about=f"what is new for {asked.user}",
        headers={"List-Unsubscribe": f"<{stop}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"},
    )


def _subject(parts: list[Part]) -> str:
    others = sum(len(part.items) for part in parts) - 1
    more = f" and {others} more" if others else ""
    return f"{settings.ACCOUNT_EMAIL_SUBJECT_PREFIX}New: {parts[0].items[0].name}{more}"


def _text(origin: str, parts: list[Part], stop: str) -> str:
    lines = []
    for part in parts:
        lines += [part.heading, ""]
        for item in part.items[:NAMED]:
            lines += [f"* {item.name}{f': {item.about}' if item.about else ''}", f"  {origin}{item.path}"]
        if len(part.items) > NAMED:
            lines.append(f"* and {len(part.items) - NAMED} more: {origin}{part.path}")
        lines.append("")
    lines += [
        "You asked for these mails. There is one a day at most, and none where nothing is new.",
        f"What they tell of: {origin}{reverse('following')}",
        f"No more of them: {stop}",
    ]
    return "\n".join(lines) + "\n"
