"""Clients of Redis: the example of this project, and redis-py with hiredis. Values and messages have 64 bytes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator

from benchmarks._client_trial import ClientTrial
from examples.async_redis_client import Redis as AsyncRedis
from examples.redis_client import Redis

_VALUE = b"v" * 64
_PUBLISH = "for n = 1, ARGV[1] do redis.call('PUBLISH', 'news', string.format('%064d', n)) end"


@contextlib.contextmanager
def _publisher(trial: ClientTrial) -> Iterator[Callable[[], None]]:
    """A function that publishes a batch. All of it waits in the server then, so that only reading is measured."""
    with Redis.connect("127.0.0.1", trial.port) as publisher:

        def publish() -> None:
            while publisher.execute("PUBSUB", "NUMSUB", "news") != [b"news", 1]:
                pass
            publisher.execute("EVAL", _PUBLISH, 0, trial.batch)

        yield publish


def _expected_messages(trial: ClientTrial) -> list[bytes]:
    return [b"%064d" % number for number in range(1, trial.batch + 1)]


# Messages.


def messages(trial: ClientTrial) -> None:
    expected = _expected_messages(trial)
    with _publisher(trial) as publish, Redis.connect("127.0.0.1", trial.port) as client:
        client.subscribe("news")
        iterator = client.messages()
        for count in trial.batches(publish):
            found = [data for _, data in itertools.islice(iterator, count)]
            trial.check(found, expected)


def redis_py_messages(trial: ClientTrial) -> None:
    import redis

    expected = _expected_messages(trial)
    with _publisher(trial) as publish, redis.Redis(port=trial.port) as client:
        with client.pubsub(ignore_subscribe_messages=True) as subscription:
            subscription.subscribe("news")
            iterator = subscription.listen()
            for count in trial.batches(publish):
                found = [each["data"] for each in itertools.islice(iterator, count)]
                trial.check(found, expected)


async def _messages(trial: ClientTrial) -> None:
    expected = _expected_messages(trial)
    with _publisher(trial) as publish:
        async with await AsyncRedis.connect("127.0.0.1", trial.port) as client:
            await client.subscribe("news")
            iterator = client.messages()
            for count in trial.batches(publish):
                found = [(await anext(iterator))[1] for _ in range(count)]
                trial.check(found, expected)


async def _redis_py_messages(trial: ClientTrial) -> None:
    import redis.asyncio

    expected = _expected_messages(trial)
    with _publisher(trial) as publish:
        async with redis.asyncio.Redis(port=trial.port) as client:
            async with client.pubsub(ignore_subscribe_messages=True) as subscription:
                await subscription.subscribe("news")
                iterator = subscription.listen()
                for count in trial.batches(publish):
                    found = [(await anext(iterator))["data"] for _ in range(count)]
                    trial.check(found, expected)


def async_messages(trial: ClientTrial) -> None:
    asyncio.run(_messages(trial))


def redis_py_async_messages(trial: ClientTrial) -> None:
    asyncio.run(_redis_py_messages(trial))


# Commands, one after the other.


def commands(trial: ClientTrial) -> None:
    with Redis.connect("127.0.0.1", trial.port) as client:
        client.execute("SET", "value", _VALUE)
        for count in trial.batches():
            found = [client.execute("GET", "value") for _ in range(count)]
            trial.check(found, [_VALUE] * count)


def redis_py_commands(trial: ClientTrial) -> None:
    import redis

    with redis.Redis(port=trial.port) as client:
        client.set("value", _VALUE)
        for count in trial.batches():
            found = [client.get("value") for _ in range(count)]
            trial.check(found, [_VALUE] * count)


async def _commands(trial: ClientTrial) -> None:
    async with await AsyncRedis.connect("127.0.0.1", trial.port) as client:
        await client.execute("SET", "value", _VALUE)
        for count in trial.batches():
            found = [await client.execute("GET", "value") for _ in range(count)]
            trial.check(found, [_VALUE] * count)


async def _redis_py_commands(trial: ClientTrial) -> None:
    import redis.asyncio

    async with redis.asyncio.Redis(port=trial.port) as client:
        await client.set("value", _VALUE)
        for count in trial.batches():
            found = [await client.get("value") for _ in range(count)]
            trial.check(found, [_VALUE] * count)


def async_commands(trial: ClientTrial) -> None:
    asyncio.run(_commands(trial))


def redis_py_async_commands(trial: ClientTrial) -> None:
    asyncio.run(_redis_py_commands(trial))
