"""The client of TFaaS servers, under the name that a user looks for first."""

from mlaas4hep.inference.client import TFaaSClient

__all__ = ["TFaaSClient"]
