"""What the benchmarks call: functions that do nothing, as bench/guest has them in Go."""

import freshet

freshet.app("benchpy", scale={"min": 1, "max": 1, "scaledown_window": 1}, memory=256)


@freshet.function()
def warm(body: bytes):
    return body


@freshet.function(concurrency=64)
def threads(body: bytes):
    return body


@freshet.function(concurrency=64)
async def many(body: bytes):
    return body
