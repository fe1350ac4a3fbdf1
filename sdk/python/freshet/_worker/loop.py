"""Calls of async functions, beside each other on one event loop; those of others in threads of a pool."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Optional

from freshet._context import CURRENT, Call
from freshet._worker import codec, failure, logs, quiet, wire
from freshet._worker.entry import Function
from freshet._worker.session import Done, Session


def serve(session: Session) -> None:
    """Takes the host's messages until the end."""
    if sys.version_info < (3, 10):  # where what the module made at its import belongs to the default loop
        asyncio.get_event_loop().run_until_complete(_serve(session))
    else:
        asyncio.run(_serve(session))


async def _serve(session: Session) -> None:
    await Loop(session).serve()


class Loop:
    """The event loop's side of a session, on the main thread."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._performer = session.performer
        self._calls: dict[int, Call] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._pool = ThreadPoolExecutor(session.concurrency, thread_name_prefix="freshet-call")
        self._ended: asyncio.Future[None]
        self._web: Any = None

    async def serve(self) -> None:
        logs.carry_into_pools()
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        await self._hooks("enter")
        if self._session.target.web:
            from freshet._worker.web import Server

            self._web = Server(self._session, self._pool)
            await self._web.start()
        self._session.ready()
        loop.add_reader(self._session.reader.fd, self._readable)
        try:
            await self._ended
        except Done:
            pass
        finally:
            loop.remove_reader(self._session.reader.fd)
        raise Done

    async def _hooks(self, name: str) -> None:
        for hook in self._session.target.hooks[name]:
            try:
                value = hook()
                if inspect.isawaitable(value):
                    await value
            except BaseException as error:
                raise self._session.fail(error) from None

    def _readable(self) -> None:
        try:
            for message in self._session.reader.read():
                self._dispatch(message)
        except BaseException as error:
            self._end(error)

    def _end(self, error: BaseException) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)

    def _dispatch(self, message: wire.Message) -> None:
        if message.type == wire.CALL:
            self._begin(Call(message.call, message.decode(), message.payload))
        elif message.type == wire.CANCEL:
            call = self._calls.get(message.call)
            if call is not None:
                self._cancel(call, message.decode().get("kind", ""))
        elif self._web is not None and wire.OPEN <= message.type <= wire.CLOSE:
            self._web.handle(message)
        elif message.type in (wire.FREEZE, wire.THAWED, wire.DRAIN):
            self._spawn(self._about_all(message))
        else:
            self._session.handle(message)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _about_all(self, message: wire.Message) -> None:
        """A message about the whole worker, when no call runs any more."""
        try:
            await self._idle.wait()
            if message.type == wire.FREEZE:
                if self._web is not None:
                    await self._web.quiesce()
                await self._hooks("before_freeze")
                quiet.collect()
                self._session.writer.write(wire.FROZEN)
            elif message.type == wire.THAWED:
                self._session.thaw(message)
                await self._hooks("after_thaw")
                self._session.ready()
            else:
                if self._web is not None:
                    await self._web.stop()
                await self._hooks("exit")
                self._session.writer.write(wire.DRAINED)
                raise Done
        except BaseException as error:
            self._end(error)

    def _begin(self, call: Call) -> None:
        self._calls[call.number] = call
        self._idle.clear()
        if self._web is not None:
            call.task = self._spawn(self._answer(call, None))
            return
        try:
            function = self._session.target.find(call.method)
        except Exception as error:
            self._session.writer.send((failure.frame(call.number, error),))
            self._forget(call)
            return
        if function.asynchronous:
            call.task = self._spawn(self._answer(call, function))
            return
        done = self._pool.submit(self._performer.perform, call, function)
        loop = asyncio.get_running_loop()
        done.add_done_callback(lambda _: loop.call_soon_threadsafe(self._forget, call))

    def _forget(self, call: Call) -> None:
        self._calls.pop(call.number, None)
        if not self._calls:
            self._idle.set()

    def _cancel(self, call: Call, kind: str) -> None:
        if call.task is not None:
            call.task.cancel()
        else:  # not here: it waits for the pool's thread
            threading.Thread(target=self._performer.interrupt, args=(call, kind), daemon=True).start()

    async def _answer(self, call: Call, function: Optional[Function]) -> None:
        """Runs a call and answers it, also when it is cancelled."""
        CURRENT.set(call)
        try:
            answer = await self._attempt(call, function)
        except BaseException as error:
            answer = failure.frame(call.number, error, call.content_type == codec.PICKLE)
        self._performer.end(call, answer)
        self._forget(call)

    async def _attempt(self, call: Call, function: Optional[Function]) -> bytes:
        if function is None:
            return await self._web.call(call)
        args, kwargs = function.arguments(call.content_type, call.payload)
        pickled = call.content_type == codec.PICKLE
        value = function.call(*args, **kwargs)
        if function.generator:
            value = await self._generate(call, value, pickled)
        else:
            value = await value
        return self._performer.result(call, value, pickled, function.generator)

    async def _generate(self, call: Call, values: Any, pickled: bool) -> list[Any]:
        """Sends each value as it comes, or keeps them all for a caller who waits for the end."""
        kept: list[Any] = []
        try:
            async for value in values:
                if not call.stream:
                    kept.append(value)
                    continue
                self._performer.send_value(call, value, pickled)
                await asyncio.sleep(0)  # others have their turn, and a cancel comes through
        finally:
            await values.aclose()
        return kept
