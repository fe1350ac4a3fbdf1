"""Embeds sentences, and finds those that mean what is asked for. Deploy it with: freshet deploy examples/embed/app.py"""

import os
import re

import freshet

# One thread each: more processors are more workers.
freshet.app("embed", image="dockerfile:Dockerfile", cpu=1000, memory=1024, startup_timeout=120, env={"OPENBLAS_NUM_THREADS": "1"})

TEXTS = "/texts"


@freshet.function(scale=(0, 8), retries=1)
class Embedder:
    """A sentence in, its vector out."""

    def enter(self):
        import minilm

        self.model = minilm.Model()
        self.model.embed("the first one lays out numpy's buffers")

    def embed(self, text: str):
        return self.model.embed(text).tolist()


@freshet.function(scale=(0, 2), mounts={TEXTS: "/usr/share/common-licenses"})
class Search:
    """Knows the sentences of a folder of texts: reading and embedding them takes its load a while, and a thawed worker none."""

    def enter(self):
        import minilm
        import numpy

        self.model = minilm.Model()
        self.sentences = sentences(TEXTS, 200)
        self.vectors = numpy.stack([self.model.embed(sentence) for sentence in self.sentences])

    def find(self, q: str, most: int = 5):
        near = self.vectors @ self.model.embed(q)
        return [{"text": self.sentences[i], "near": round(float(near[i]), 3)} for i in near.argsort()[::-1][:most]]


def sentences(folder, most):
    """The different sentences of the folder's files, in the order of their names."""
    found = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
            for text in re.split(r"(?<=[.;:])\s+|\n\s*\n", file.read()):
                text = " ".join(text.split())
                if 40 <= len(text) <= 250:
                    found.setdefault(text)
    step = max(1, len(found) // most)
    return list(found)[::step][:most]
