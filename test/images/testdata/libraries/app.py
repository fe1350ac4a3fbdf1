"""A function for each library, which loads it and makes something with it before the worker is frozen."""

import freshet

freshet.app("libraries", image="dockerfile:Dockerfile", cpu=1000, memory=1024, env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"})


class Library:
    def answer(self, x: int):
        return self.made(x)


@freshet.function(scale=(0, 2))
class Unpacked(Library):
    """The first one, whose cold start has the node unpack the image too."""

    def enter(self):
        self.made = lambda x: x


@freshet.function(scale=(0, 2))
class Plain(Library):
    def enter(self):
        self.made = lambda x: x


@freshet.function(scale=(0, 2))
class Numpy(Library):
    def enter(self):
        import numpy

        table = numpy.arange(1_000_000, dtype=numpy.float64).reshape(1000, 1000)
        self.made = lambda x: float(table[x % 1000].sum())


@freshet.function(scale=(0, 2))
class Sklearn(Library):
    def enter(self):
        import numpy
        from sklearn.ensemble import RandomForestClassifier

        points = numpy.random.default_rng(1).normal(size=(2000, 8))
        forest = RandomForestClassifier(n_estimators=50, random_state=1).fit(points, points[:, 0] > 0)
        self.made = lambda x: bool(forest.predict(numpy.full((1, 8), float(x)))[0])


@freshet.function(scale=(0, 2))
class Onnxruntime(Library):
    def enter(self):
        import onnxruntime

        self.made = lambda x: [onnxruntime.get_available_providers()[-1], x]


@freshet.function(scale=(0, 2))
class Tokenizers(Library):
    def enter(self):
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.train_from_iterator((f"word{i} stands beside word{i * 7}" for i in range(20_000)), trainers.BpeTrainer(vocab_size=5000))
        self.made = lambda x: tokenizer.encode(f"word{x}").tokens
