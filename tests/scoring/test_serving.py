"""A scorer inside a service: many threads, single requests, counters, and a service's kinds of input."""

import io
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from gradscore import GradscoreError, InputError, Scorer
from models.digits_cnn import DigitsCNN


@pytest.fixture(scope="module")
def scorer(prepared):
    torch.manual_seed(0)
    with Scorer.load(prepared("served", DigitsCNN().eval(), torch.zeros(2, 1, 8, 8))) as scorer:
        yield scorer


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (64, 1, 8, 8), dtype=np.uint8)


def png(one):
    buffer = io.BytesIO()
    Image.fromarray(one[0]).save(buffer, "PNG")
    return buffer.getvalue()


def hammered(scorer, pixels, seconds):
    """Score from eight threads for some seconds. Every result must have the bits of one thread."""
    cuts = [slice(start, start + size) for start, size in ((0, 1), (3, 7), (0, 32), (10, 54))]
    alone = [scorer.score(pixels[cut]).features for cut in cuts]
    until, rounds = time.monotonic() + seconds, Counter()

    def work(thread):
        while time.monotonic() < until:
            for cut, wanted in zip(cuts, alone, strict=True):
                np.testing.assert_array_equal(scorer.score(pixels[cut]).features, wanted)
                rounds[thread] += 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(rounds) == 8


def test_eight_threads_change_no_bit(scorer, pixels):
    hammered(scorer, pixels, 1.5)


@pytest.mark.slow
def test_eight_threads_change_no_bit_for_a_minute(scorer, pixels):
    hammered(scorer, pixels, 60)


def test_bytes_and_dlpack_are_scored_like_arrays(scorer, pixels):
    wanted = scorer.score(pixels[:5]).features
    np.testing.assert_allclose(scorer.score([png(one) for one in pixels[:5]]).features, wanted, rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(scorer.score(torch.from_numpy(pixels[:5])).features, wanted)
    with pytest.raises(InputError, match="not an image of a known format"):
        scorer.score([b"text"])
    with pytest.raises(InputError, match="copy it to main memory first"):
        scorer.score(torch.zeros(1, 1, 8, 8, requires_grad=True))


def test_requests_that_come_together_are_scored_together(scorer, pixels):
    counts = Counter()
    scorer.count_with(lambda name, increase: counts.update({name: increase}))
    try:
        wanted = scorer.score(pixels)
        counts.clear()
        with scorer.batched(max_batch=16, max_delay_ms=500) as front:
            futures = [front.submit(one) for one in pixels]
            found = [future.result(timeout=30) for future in futures]
    finally:
        scorer.count_with(lambda *_: None)
    assert counts["gradscore_inputs_total"] == 64
    assert counts["gradscore_batches_total"] == 4
    assert counts["gradscore_seconds_total"] > 0
    assert all(len(one) == 1 for one in found)
    np.testing.assert_array_equal(np.concatenate([one.label for one in found]), wanted.label)
    np.testing.assert_allclose(np.concatenate([one.features for one in found]), wanted.features, rtol=1e-4, atol=1e-7)


def test_a_lonely_request_does_not_wait_for_ever(scorer, pixels):
    with scorer.batched(max_batch=16, max_delay_ms=1) as front:
        for sample in (pixels[0], torch.from_numpy(pixels[0]), png(pixels[0])):
            np.testing.assert_allclose(
                front.score(sample).features, scorer.score(pixels[:1]).features, rtol=1e-6, atol=1e-12
            )


def test_a_wrong_request_spoils_no_other(scorer, pixels):
    with scorer.batched(max_batch=8, max_delay_ms=200) as front:
        good = front.submit(pixels[0])
        with pytest.raises(InputError, match="does not fit"):
            front.submit(np.zeros((1, 9, 9), np.uint8))
        cancelled = front.submit(pixels[1])
        assert cancelled.cancel()
        assert len(good.result(timeout=30)) == 1
        assert front.score(pixels[2]).label.shape == (1,)


def test_a_failing_batch_is_told_to_all_and_the_front_goes_on(scorer, pixels, monkeypatch, caplog):
    front = scorer.batched(max_batch=2, max_delay_ms=200)
    with monkeypatch.context() as patch:
        patch.setattr(front, "_score", lambda _: 1 / 0)
        futures = [front.submit(one) for one in pixels[:2]]
        for future in futures:
            with pytest.raises(ZeroDivisionError):
                future.result(timeout=30)
    assert "a batch of 2 inputs could not be scored" in caplog.text
    assert len(front.score(pixels[0])) == 1
    front.close()


def test_closing_answers_what_was_submitted(scorer, pixels):
    front = scorer.batched(max_batch=4, max_delay_ms=1000)
    futures = [front.submit(one) for one in pixels[:10]]
    front.close()
    front.close()
    assert all(future.done() for future in futures)
    with pytest.raises(GradscoreError, match="closed"):
        front.submit(pixels[0])
    assert not any(thread.name == "gradscore-batched" for thread in threading.enumerate())
    with pytest.raises(InputError, match=r"max_batch is .*max_delay_ms is .*: pass at least 1 and 0"):
        scorer.batched(max_batch=0)
