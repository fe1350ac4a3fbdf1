"""Greets people, and counts words. Deploy it with: freshet deploy examples/hello/app.py --image IMAGE"""

import asyncio

import freshet
from words import Counter

freshet.app("hello", memory=256)


@freshet.function(concurrency=16, timeout=10)
async def greet(name: str = "world") -> dict:
    await asyncio.sleep(0)
    print("greeting", name)
    return {"text": f"hello {name}", "call": freshet.current().id}


@freshet.function(scale=(0, 4), retries=1)
class Words:
    """Loads once, and is frozen with what it loaded."""

    def enter(self):
        self.counter = Counter()

    def count(self, text: str):
        return self.counter.count(text)

    def largest(self, text: str, most: int = 3):
        yield from self.counter.largest(text, most)
