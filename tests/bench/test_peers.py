"""The peers of the benchmarks, where torch is: they learn from the same batch, and do the arithmetic that ours does."""

import jax.numpy as jnp
import numpy as np
import pytest

from ctxjax.objectives import vocabulary
from experiments.bench import __main__ as bench
from experiments.bench import awd_lstm, bert, bilm, training
from experiments.bench.training import Settings

torch = pytest.importorskip("torch", reason="the peers need torch (extra [bench])")

PEERS = [name for name, kind in bench.ITEMS.items() if kind in (bert, bilm, awd_lstm) or "gpt2" in name]


@pytest.mark.filterwarnings("ignore::UserWarning:torch.*")
@pytest.mark.parametrize("name", PEERS)
def test_both_sides_learn_from_one_batch(name):
    kind = bench.ITEMS[name]
    if kind not in (bilm, awd_lstm):
        pytest.importorskip("transformers", reason="the peer needs transformers (extra [bench])")
    work = kind.make(name, Settings(tiny=True))
    for build in work.peers.values():
        side = build()
        losses = [side().loss for _ in range(8)]
        assert np.isfinite(losses).all() and side().amount == work.notes["tokens_per_step"]
        assert min(losses[-3:]) < losses[0] or name == "lstm_1152"  # which has nothing to learn


def test_gathering_the_told_rows_changes_no_loss():
    transformers = pytest.importorskip("transformers", reason="the peer needs transformers (extra [bench])")
    config = transformers.BertConfig(
        vocab_size=97, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    torch.manual_seed(0)
    peer, fed = transformers.BertForPreTraining(config).eval(), training.tensors(bert.batch_of(3, 16, 4, 97))
    plain, gathered = (loss_of(peer, fed) for loss_of in (bert._everywhere, bert._gathered))
    assert plain.item() == pytest.approx(gathered.item(), rel=1e-5)


def test_the_layer_alone_gives_our_loss():
    batch = awd_lstm.layer_batch(4, 7, 12)
    ours, theirs = (build(batch, 28.0)().loss for build in (awd_lstm._our_layer, awd_lstm._their_layer))
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_the_sampled_softmax_is_ours():
    rng = np.random.default_rng(0)
    words, samples, size = 50, 8, 6
    rows, table = rng.standard_normal((5, size), np.float32), rng.standard_normal((words, size), np.float32)
    bias, targets = rng.standard_normal(words, np.float32), rng.integers(0, words, 5).astype(np.int32)
    drawn, log_expected = bilm._draw(words, samples, "cpu")
    targets[0] = int(drawn[0])  # an accidental hit
    softmax = torch.nn.Linear(size, words)
    with torch.no_grad():
        softmax.weight.copy_(torch.from_numpy(table))
        softmax.bias.copy_(torch.from_numpy(bias))
    theirs = bilm._sampled(torch.from_numpy(rows), softmax, torch.from_numpy(targets).long(), drawn, log_expected)
    given = (rows, table, bias, targets, np.ones(5, np.float32), drawn.numpy().astype(np.int32), log_expected.numpy())
    ours = vocabulary.sampled_cross_entropy(*map(jnp.asarray, given))
    assert float(ours) / 5 == pytest.approx(float(theirs.detach()), rel=1e-5)


def test_words_are_drawn_by_the_log_uniform_law_without_repeats():
    torch.manual_seed(0)
    words, samples, times = 40, 10, 400
    draws = [bilm._draw(words, samples, "cpu") for _ in range(times)]
    assert all(len(set(ids.tolist())) == samples for ids, _ in draws)
    found = np.bincount(np.concatenate([ids.numpy() for ids, _ in draws]), minlength=words) / times
    expected = np.mean([np.exp(chances.numpy()) for _, chances in draws], axis=0)
    # The chances are of an estimate of the time of ringing, near but not equal to the shares of the draws.
    assert expected.sum() == pytest.approx(samples, rel=0.1) and np.abs(found - expected).max() < 0.12
    assert found[0] > found[10] > found[39]
