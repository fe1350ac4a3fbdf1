"""What app.py imports is shipped with it."""

import collections
import re


class Counter:
    def __init__(self):
        self.word = re.compile(r"\w+")

    def count(self, text):
        return len(self.word.findall(text))

    def largest(self, text, most):
        for word, count in collections.Counter(self.word.findall(text.lower())).most_common(most):
            yield {"word": word, "count": count}
