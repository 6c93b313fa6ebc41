"""The shared cache: what is in it can be missing at any time, so a server that is away is an empty cache."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from django.core.cache.backends.redis import RedisCache
from redis.exceptions import ConnectionError, TimeoutError

logger = logging.getLogger(__name__)
T = TypeVar("T")


class ForgivingRedisCache(RedisCache):
    """Redis that answers "nothing here" while it cannot be reached: pages and the API go on, limits pause."""

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        return _or(default, lambda: super(ForgivingRedisCache, self).get(key, default, version))

    def get_many(self, keys: Any, version: int | None = None) -> dict[str, Any]:
        nothing: dict[str, Any] = {}
        return _or(nothing, lambda: super(ForgivingRedisCache, self).get_many(keys, version))

    def has_key(self, key: str, version: int | None = None) -> bool:
        return _or(False, lambda: super(ForgivingRedisCache, self).has_key(key, version))

    def add(self, key: str, value: Any, *args: Any, **options: Any) -> bool:
        return _or(True, lambda: super(ForgivingRedisCache, self).add(key, value, *args, **options))

    def set(self, key: str, value: Any, *args: Any, **options: Any) -> None:
        _or(None, lambda: super(ForgivingRedisCache, self).set(key, value, *args, **options))

    def set_many(self, data: Any, *args: Any, **options: Any) -> list[Any]:
        return _or(list(data), lambda: super(ForgivingRedisCache, self).set_many(data, *args, **options))

    def touch(self, key: str, *args: Any, **options: Any) -> bool:
        return _or(False, lambda: super(ForgivingRedisCache, self).touch(key, *args, **options))

    def incr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        return _or(delta, lambda: super(ForgivingRedisCache, self).incr(key, delta, version))

    def delete(self, key: str, version: int | None = None) -> bool:
        return _or(False, lambda: super(ForgivingRedisCache, self).delete(key, version))

    def delete_many(self, keys: Any, version: int | None = None) -> None:
        _or(None, lambda: super(ForgivingRedisCache, self).delete_many(keys, version))


def _or(otherwise: T, ask: Callable[[], T]) -> T:
    try:
        return ask()
    except (ConnectionError, TimeoutError) as error:
        logger.warning("The cache does not answer: %s", error)
        return otherwise
