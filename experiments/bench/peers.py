"""The PyTorch peers of step.py: the same step as a user of PyTorch writes it, a function without arguments each."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from work import AWD, BERT, BILM, CHARS, DROPOUTS, GPT2, GPT2_VOCAB, LENGTH, LSTM, VOCAB, WORDS

Step = Callable[[], float]


def bert_peer(name: str, batch: dict[str, Any]) -> Step:
    import torch
    from transformers import BertConfig, BertForPreTraining

    rows, width, depth, heads = BERT[name]
    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
    )
    model = BertForPreTraining(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    long = lambda array: torch.from_numpy(np.asarray(array)).long()
    labels = np.full((rows, LENGTH), -100)
    np.put_along_axis(labels, batch["target_positions"], batch["targets"], 1)
    fed = {
        "input_ids": long(batch["inputs"]["tokens"]),
        "token_type_ids": long(batch["inputs"]["segment_ids"]),
        "attention_mask": long(batch["inputs"]["mask"]),
        "labels": long(labels),
        "next_sentence_label": long(batch["is_random"]),
    }

    def step() -> float:
        optimizer.zero_grad()
        loss = model(**fed).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss)

    return step


def bilm_peer(name: str, batch: dict[str, Any]) -> Step:
    import torch
    from torch import nn

    cell, size = BILM[name]
    filters = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))
    features = sum(number for _, number in filters)

    class Peer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.chars = nn.Embedding(261, 16)
            self.convs = nn.ModuleList([nn.Conv1d(16, number, width) for width, number in filters])
            self.gates = nn.ModuleList([nn.Linear(features, 2 * features) for _ in range(2)])
            self.project = nn.Linear(features, size)
            self.lstms = nn.ModuleList([nn.LSTM(size, cell, proj_size=size) for _ in range(4)])
            self.softmax = nn.Linear(size, WORDS)
            self.drop = nn.Dropout(0.1)

        def words(self, chars: Any) -> Any:
            embedded = self.chars(chars.reshape(-1, CHARS)).transpose(1, 2)
            x = torch.relu(torch.cat([conv(embedded).amax(2) for conv in self.convs], 1))
            for layer in self.gates:
                made, gate = layer(x).chunk(2, 1)
                gate = torch.sigmoid(gate)
                x = gate * torch.relu(made) + (1 - gate) * x
            return self.project(x).reshape(*chars.shape[:3], -1)

        def forward(self, chars: Any, targets: Any, states: list[Any]) -> tuple[Any, list[Any]]:
            embedded, total, kept = self.words(chars), 0.0, []
            for direction in range(2):
                x = embedded[:, direction].transpose(0, 1)
                for layer in range(2):
                    dropped = self.drop(x)
                    x, state = self.lstms[2 * direction + layer](dropped, states[2 * direction + layer])
                    x = x + dropped if layer else x
                    kept.append(tuple(leaf.detach() for leaf in state))
                logits = self.softmax(self.drop(x)).reshape(-1, WORDS)
                total = total + 0.5 * nn.functional.cross_entropy(logits, targets[:, direction].T.reshape(-1))
            return total, kept

    model = Peer().train()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.2, initial_accumulator_value=1.0)
    chars, targets = (torch.from_numpy(leaf).long() for leaf in (batch["inputs"]["chars"], batch["targets"]))
    states: list[Any] = [None] * 4

    def step() -> float:
        nonlocal states
        optimizer.zero_grad()
        loss, states = model(chars, targets, states)
        (20.0 * loss).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        return float(loss)

    return step


def awd_peer(name: str, batch: dict[str, Any]) -> Step:
    import torch
    from torch import nn

    words, embed, width, depth, lanes, _ = AWD[name]
    sizes = [embed, *[width] * (depth - 1), embed]

    def locked(x: Any, rate: float) -> Any:
        return x * torch.empty(1, *x.shape[1:]).bernoulli_(1 - rate).div_(1 - rate)

    class Peer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.empty(words, embed).uniform_(-0.1, 0.1))
            self.bias = nn.Parameter(torch.zeros(words))
            self.lstms = nn.ModuleList([nn.LSTM(below, above) for below, above in itertools.pairwise(sizes)])

        def forward(self, tokens: Any, states: list[Any]) -> tuple[Any, Any, list[Any]]:
            kept_words = torch.empty(words, 1).bernoulli_(1 - DROPOUTS["embed_dropout"])
            table = self.table * kept_words / (1 - DROPOUTS["embed_dropout"])
            x = locked(nn.functional.embedding(tokens, table), DROPOUTS["input_dropout"])
            kept = []
            for index, lstm in enumerate(self.lstms):
                x = locked(x, DROPOUTS["hidden_dropout"]) if index else x
                weights = dict(lstm.named_parameters())
                dropped = nn.functional.dropout(weights["weight_hh_l0"], DROPOUTS["weight_drop"])
                x, state = torch.func.functional_call(lstm, weights | {"weight_hh_l0": dropped}, (x, states[index]))
                kept.append(tuple(leaf.detach() for leaf in state))
            return x, locked(x, DROPOUTS["dropout"]), kept

    model = Peer().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, betas=(0.8, 0.99))
    tokens, targets = (torch.from_numpy(leaf.T.copy()).long() for leaf in (batch["inputs"]["tokens"], batch["targets"]))
    states: list[Any] = [(torch.zeros(1, lanes, size), torch.zeros(1, lanes, size)) for size in sizes[1:]]

    def step() -> float:
        nonlocal states
        optimizer.zero_grad()
        raw, dropped, states = model(tokens, states)
        logits = nn.functional.linear(dropped.flatten(0, 1), model.table, model.bias)
        loss = nn.functional.cross_entropy(logits, targets.flatten())
        loss = loss + 2.0 * dropped.square().mean() + (raw[1:] - raw[:-1]).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.12)
        optimizer.step()
        return float(loss.detach())

    return step


def gpt2_peer(name: str, batch: dict[str, Any]) -> Step:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    _, _, width, depth, heads = GPT2[name]
    config = GPT2Config(vocab_size=GPT2_VOCAB, n_positions=1024, n_embd=width, n_layer=depth, n_head=heads)
    model = GPT2LMHeadModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2.5e-4, weight_decay=0.01)
    row = np.concatenate([batch["inputs"]["tokens"], batch["targets"][:, -1:]], axis=1)
    tokens = torch.from_numpy(row).long()

    def step() -> float:
        optimizer.zero_grad()
        logits = model(tokens[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss.detach())

    return step


def lstm_peer(name: str, batch: dict[str, Any]) -> Step:
    import torch

    _, _, cells = LSTM[name]
    layer = torch.nn.LSTM(cells, cells)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.from_numpy(batch["input"]))
        layer.weight_hh_l0.copy_(torch.from_numpy(batch["recurrent"]))
        layer.bias_ih_l0.copy_(torch.from_numpy(batch["bias"]))
        layer.bias_hh_l0.zero_()
    x = torch.from_numpy(batch["x"]).requires_grad_()

    def step() -> float:
        layer.zero_grad()
        x.grad = None
        loss = layer(x)[0].square().mean()
        loss.backward()
        return float(loss.detach())

    return step
