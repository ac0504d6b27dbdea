"""XGBoost: boosted trees, which learn what an absent value means.

workflow.py --files=examples/data/VBF_HToTauTau.root,examples/data/GluGluToHToTauTau.root --labels=VBF,ggH --model=examples/model_xgboost.py
"""

from xgboost import XGBClassifier


def model(idim):
    return XGBClassifier(
        n_estimators=300, max_depth=5, learning_rate=0.08, subsample=0.8, colsample_bytree=0.5, early_stopping_rounds=30
    )
