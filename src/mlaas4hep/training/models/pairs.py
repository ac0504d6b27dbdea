"""What two objects have to do with each other: their angle and their mass, as a bias of the attention between them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from mlaas4hep.errors import SettingError
from mlaas4hep.streaming.encoding.encoding import Encoding
from mlaas4hep.streaming.encoding.objects import ObjectArrays

__all__ = ["PairFeatures"]

MEMBERS = ("pt", "eta", "phi")
SMALLEST = 1e-8  # of a squared angle or mass, before its logarithm
LARGEST_DISTANCE = 20.0  # in eta, where cosh still has room in a float


class PairFeatures(nn.Module):
    """Gives the bias of each pair of tokens; pairs with the event, or with an object without momentum, have none.

    Parameters
    ----------
    encoding : Encoding
        Of layout ``objects``.
    heads : int
        Biases to give for a pair.

    Raises
    ------
    SettingError
        If no collection has pt, eta and phi.
    """

    def __init__(self, encoding: Encoding, heads: int) -> None:
        super().__init__()
        self.places: dict[str, tuple[int, ...]] = {}
        features = {feature.branch: feature for feature in encoding.features}
        for collection in encoding.collections:
            wanted = [f"{collection.name}_{member}" for member in MEMBERS]
            if all(name in collection.members for name in wanted):
                self.places[collection.name] = tuple(collection.members.index(name) for name in wanted)
                numbers = [
                    (f.shift, f.scale, f.log_shift, f.log_scale, float(f.transform == "log"))
                    for f in (features[name] for name in wanted)
                ]
                self.register_buffer(f"scaling_{collection.name}", torch.tensor(numbers).T.contiguous())
        if not self.places:
            raise SettingError("model.pairs", "false where no collection has pt, eta and phi", True)
        self.network = nn.Sequential(nn.Linear(3, 16), nn.GELU(), nn.Linear(16, heads))

    def forward(self, found: Mapping[str, ObjectArrays]) -> torch.Tensor:
        """Return ``[n, heads, tokens, tokens]``, the event being the first token."""
        momenta, known = [], []
        for name, objects in found.items():
            if name in self.places:
                momenta.append(self._physical(name, objects.x[:, :, list(self.places[name])]))
                known.append(~objects.mask)
            else:
                momenta.append(torch.zeros_like(objects.x[:, :, :1]).expand(-1, -1, 3))
                known.append(torch.zeros_like(objects.mask))
        pt, eta, phi = torch.cat(momenta, dim=1).unbind(-1)  # [n, objects]
        there = torch.cat(known, dim=1)
        distance = (eta.unsqueeze(2) - eta.unsqueeze(1)).clamp(-LARGEST_DISTANCE, LARGEST_DISTANCE)
        turned = torch.cos(phi.unsqueeze(2) - phi.unsqueeze(1))
        # The chord in place of the arc, so that no angle has to be brought back to one turn.
        angle = distance**2 + 2 * (1 - turned)
        both = pt.unsqueeze(2) * pt.unsqueeze(1)
        hyperbolic = (torch.exp(distance) + torch.exp(-distance)) / 2
        mass = 2 * both * (hyperbolic - turned)
        softer = torch.minimum(pt.unsqueeze(2), pt.unsqueeze(1)) ** 2 * angle
        logarithms = [torch.log(value.clamp(min=SMALLEST)) / 5 for value in (angle, mass, softer)]
        bias = self.network(torch.stack(logarithms, dim=-1))
        pair = (there.unsqueeze(2) & there.unsqueeze(1)).unsqueeze(-1)
        bias = torch.where(pair, bias, torch.zeros_like(bias)).permute(0, 3, 1, 2)
        padded: torch.Tensor = nn.functional.pad(bias, (1, 0, 1, 0))
        return padded

    def _physical(self, name: str, scaled: torch.Tensor) -> torch.Tensor:
        """Return pt, eta and phi in the units of the file."""
        shift, scale, log_shift, log_scale, logarithmic = getattr(self, f"scaling_{name}").unbind(0)
        exponential = torch.exp((scaled / log_scale + log_shift).clamp(max=30)) - 1
        values: torch.Tensor = torch.where(logarithmic > 0, exponential, scaled) / scale + shift
        return values
