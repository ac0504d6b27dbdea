"""The example classifier in Keras: a network of two hidden layers, compiled as Keras' guides write it.

Copy this file, change it, and give it to ``workflow.py --model``. Needs Keras.
"""

from __future__ import annotations

from typing import Any

__all__ = ["model"]


def model(idim: int, classes: int = 2) -> Any:
    """Return a compiled Keras model.

    Parameters
    ----------
    idim : int
        Number of places of the feature vector.
    classes : int
        Number of classes.

    Examples
    --------
    >>> model(125).output_shape
    (None, 1)
    """
    from mlaas4hep.training.frameworks.keras.library import keras

    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input((idim,)),
            # Most values of a min-max scaled branch with a long tail lie near 0: spread them out first. Keras' own momentum of 0.99
            # needs a thousand steps to forget the variance of 1 that it began with.
            layers.BatchNormalization(momentum=0.9),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.1),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.1),
            layers.Dense(1, activation="sigmoid") if classes == 2 else layers.Dense(classes, activation="softmax"),
        ]
    )
    loss = "binary_crossentropy" if classes == 2 else "sparse_categorical_crossentropy"
    network.compile(optimizer=keras.optimizers.AdamW(2e-3, weight_decay=1e-3), loss=loss)
    return network
