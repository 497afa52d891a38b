"""Embeddings: the real model from its checked weights, batched in a thread; other weights are refused."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from tests.vectors import bert

from fabstir.domain.errors import LocalFault, PeerFault
from fabstir.protocol.vectors.collection import describe
from fabstir.vectors.database import VectorDatabase
from fabstir.vectors.embedding import weights
from fabstir.vectors.embedding.minilm import MiniLm, Model
from fabstir.vectors.native import library

TEXTS = ["A man is eating food.", "A man is eating a piece of bread.", "Ein Mann isst; 食べる! 🍞", "word " * 400]


@pytest.fixture(scope="module")
def model() -> Model:
    """Loaded once: it hashes 90 MB."""
    return Model()


async def test_the_published_similarity_is_found(model: Model) -> None:
    """The first example of the model's own documentation has 0.7553."""
    first, second = model.embed(TEXTS[:2])
    assert float(first @ second) == pytest.approx(0.7553, abs=5e-5)


def test_it_is_the_model(model: Model) -> None:
    """Against the same weights in numpy, for each text; and a text in a batch is as it is alone."""
    found = weights.find()
    tensors = weights.tensors(weights.read(found, weights.WEIGHTS))
    tokenizer = library("tokenizers").Tokenizer.from_file(str(found / weights.TOKENIZER))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    together = model.embed(TEXTS)
    for text, row in zip(TEXTS, together, strict=True):
        assert np.allclose(row, bert.embed(tensors, tokenizer.encode(text).ids), atol=2e-6)
        assert np.allclose(row, model.embed([text])[0], atol=1e-6)
    assert together.dtype == np.float32 and np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


class Recorder(Model):
    """The batches that the thread got; the first one waits."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.gate = threading.Event()

    def embed(self, texts):
        self.gate.wait()
        self.batches.append(len(texts))
        return np.asarray([[len(text)] for text in texts], np.float32)


def test_what_it_reads_is_counted(model: Model) -> None:
    """Each text is framed by two tokens; of a long one the first 256 are read."""
    assert [model.count([text]) for text in ("bee", "a bee", TEXTS[3])] == [3, 4, 256]
    assert model.count(TEXTS) == sum(model.count([text]) for text in TEXTS)


async def test_what_is_asked_together_is_embedded_together() -> None:
    """And everybody gets their own, in order, while the event loop goes on; a batch has a bound."""
    recorder = Recorder()
    embedder = MiniLm(recorder, ThreadPoolExecutor(1))
    asked = [asyncio.create_task(embedder.embed(["x" * (number + 1), "y"])) for number in range(40)]
    await asyncio.sleep(0)  # each has asked
    recorder.gate.set()
    answers = await asyncio.gather(*asked)
    assert [answer.tolist() for answer in answers] == [[[number + 1], [1]] for number in range(40)]
    assert sum(recorder.batches) == 80 and max(recorder.batches) == 32
    await embedder.close()
    with pytest.raises(LocalFault, match="vectors_closed"):
        await embedder.embed(["late"])


@pytest.mark.parametrize("texts", [[], [""], ["a", " \n"], ["x" * 100_001], ["\ud800"], ["a"] * 1_025])
async def test_other_texts_are_refused(texts: list[str]) -> None:
    """Before the model sees them."""
    embedder = MiniLm(Recorder(), ThreadPoolExecutor(1))
    with pytest.raises(PeerFault, match="embedder_text"):
        await embedder.embed(texts)
    await embedder.close()


async def test_a_model_that_fails_is_heard_and_the_next_is_served() -> None:
    """Nobody waits for ever."""

    class Failing(Recorder):
        def embed(self, texts):
            if texts == ["bad"]:
                raise RuntimeError("as the test asks")
            return np.zeros((len(texts), 1), np.float32)

    embedder = MiniLm(Failing(), ThreadPoolExecutor(1))
    with pytest.raises(RuntimeError):
        await embedder.embed(["bad"])
    assert len(await embedder.embed(["good"])) == 1
    await embedder.close()


def test_other_weights_are_refused(tmp_path: Path) -> None:
    """One byte is enough, in either file; and what is not there is named."""
    found = weights.find()
    with pytest.raises(LocalFault, match="embedder_unavailable"):
        weights.find(tmp_path)
    for name in weights.SHA256:
        shutil.copy(found / name, tmp_path / name)
    with (tmp_path / weights.WEIGHTS).open("r+b") as file:
        file.seek(50_000_000)
        file.write(b"\0\1")
    with pytest.raises(LocalFault, match=r"embedder_corrupt.*model\.safetensors"):
        Model(tmp_path)
    (tmp_path / weights.TOKENIZER).write_text("{}")
    with pytest.raises(LocalFault, match=r"embedder_corrupt.*tokenizer\.json"):
        weights.read(tmp_path, weights.TOKENIZER)


async def test_texts_are_found_by_meaning(model: Model, database: VectorDatabase) -> None:
    """Embedder and collection together; the tag keeps others out."""
    embedder = MiniLm(model, ThreadPoolExecutor(1))
    await database.create(describe("texts", embedder.dimension, embedder=embedder.tag))
    texts = ["The cat sleeps on the sofa.", "Interest rates rose again.", "The engine needs new oil."]
    vectors: npt.NDArray[np.float32] = await embedder.embed(texts)
    await database.upsert("texts", texts, vectors, embedder=embedder.tag)
    [query] = await embedder.embed(["Where is the kitten?"])
    [best, *_] = await database.search("texts", query, embedder=embedder.tag)
    assert best.id == texts[0]
    await embedder.close()


@pytest.mark.real
@pytest.mark.parametrize("order", ["usearch.index, faiss, onnxruntime", "onnxruntime, faiss, usearch.index"])
def test_the_libraries_live_in_one_process(order: str) -> None:
    """In any order. With usearch 2.26 before it, onnxruntime crashes the process."""
    program = f"import {order}; import numpy as np; print(usearch.index.Index(ndim=8, dtype='bf16').ndim)"
    ran = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.strip()) == (0, "8"), ran.stderr
