"""scikit-learn: any classifier that ONNX knows; this one learns from all events at once, within the memory that it is allowed.

workflow.py --files=examples/data/VBF_HToTauTau.root,examples/data/GluGluToHToTauTau.root --labels=VBF,ggH --model=examples/model_sklearn.py
"""

from sklearn.ensemble import HistGradientBoostingClassifier


def model(idim):
    return HistGradientBoostingClassifier(max_iter=200, learning_rate=0.08, max_leaf_nodes=24, l2_regularization=1.0)
