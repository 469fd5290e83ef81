"""ELMo's forward pass in plain NumPy loops over the arrays of the published file, written from the paper's equations.

It shares nothing with ctxjax but character ids: gates i, j, f, o; forget bias 1; clip of the cell, projection, clip of
the projection; the second layer adds its input. State is kept from sentence to sentence when it is handed on.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def token_layer(stored, options, chars):
    """`[words, projection]` of character ids 0..260 `[words, C]`, in float64."""
    cnn = options["char_cnn"]
    act = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}[cnn["activation"]]
    rows = []
    for ids in chars:
        x = stored["char_embed"].astype(np.float64)[ids]
        pooled = []
        for index, (width, _) in enumerate(cnn["filters"]):
            kernel, bias = stored[f"CNN/W_cnn_{index}"][0].astype(np.float64), stored[f"CNN/b_cnn_{index}"]
            places = [np.einsum("wd,wdf->f", x[at : at + width], kernel) for at in range(len(ids) - width + 1)]
            pooled.append(act(np.max(places, axis=0) + bias))
        row = np.concatenate(pooled)
        for index in range(cnn["n_highway"]):
            part = {name: stored[f"CNN_high_{index}/{name}"].astype(np.float64) for name in
                    ("W_carry", "b_carry", "W_transform", "b_transform")}  # fmt: skip
            gate = sigmoid(row @ part["W_carry"] + part["b_carry"])
            row = gate * np.maximum(row @ part["W_transform"] + part["b_transform"], 0) + (1 - gate) * row
        rows.append(row @ stored["CNN_proj/W_proj"].astype(np.float64) + stored["CNN_proj/b_proj"])
    return np.array(rows)


def direction(stored, options, number, x, state):
    """All layers of one direction over `[words, projection]` in reading order; `(list of outputs, new state)`."""
    lstm = options["lstm"]
    outputs, after = [], []
    for layer in range(lstm["n_layers"]):
        name = f"RNN_{number}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
        kernel, bias, projection = (stored[f"{name}/{part}"].astype(np.float64) for part in ("W_0", "B", "W_P_0"))
        c, h = state[layer] if state is not None else (np.zeros(lstm["dim"]), np.zeros(lstm["projection_dim"]))
        held = []
        for row in x:
            i, j, f, o = np.split(np.concatenate([row, h]) @ kernel + bias, 4)
            c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j)
            if lstm["cell_clip"]:
                c = np.clip(c, -lstm["cell_clip"], lstm["cell_clip"])
            h = (sigmoid(o) * np.tanh(c)) @ projection
            if lstm["proj_clip"]:
                h = np.clip(h, -lstm["proj_clip"], lstm["proj_clip"])
            held.append(h)
        y = np.array(held)
        if lstm["use_skip_connections"] and layer > 0:
            y = y + x
        outputs.append(y)
        after.append((c, h))
        x = y
    return outputs, after


def run(stored, options, chars, state=None):
    """`([layers + 1, words, 2 projection], state)` of one sentence with its marks, layer 0 twice the token layer."""
    tokens = token_layer(stored, options, chars)
    state = state or (None, None)
    forward, first = direction(stored, options, 0, tokens, state[0])
    backward, second = direction(stored, options, 1, tokens[::-1], state[1])
    layers = [np.concatenate([tokens, tokens], axis=1)]
    layers += [np.concatenate([a, b[::-1]], axis=1) for a, b in zip(forward, backward)]
    return np.array(layers), (first, second)
