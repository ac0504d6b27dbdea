"""Keras, on PyTorch or on TensorFlow, whichever is there: a compiled model, as Keras' own guides write it.

workflow.py --files=examples/data/VBF_HToTauTau.root,examples/data/GluGluToHToTauTau.root --labels=VBF,ggH --model=examples/model_keras.py
"""

import keras
from keras import layers


def model(idim, classes):
    network = keras.Sequential(
        [
            keras.Input((idim,)),
            layers.BatchNormalization(momentum=0.9),  # Keras' own 0.99 needs a thousand steps to forget where it began
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.1),
            layers.Dense(64, activation="relu"),
            layers.Dense(classes, activation="softmax"),
        ]
    )
    network.compile(
        optimizer=keras.optimizers.AdamW(2e-3), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return network
