"""The adapter: released feature tensors -> tokens of the backbone.

z (B, R, K, d), present (B, R) --adapter--> tokens (B, R*T + 1, hidden), read by the backbone

T is `FamilyConfig.release_tokens`: K, or one where the adapter looks at nothing but the plane in which codes lie.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ADAPTER", "Adapter"]

ADAPTER = "lifter"
"""The adapter's name in checkpoints and graphs, where names of parameters are part of the format."""


class Adapter(nn.Module):
    """Releases of one event -> tokens of the backbone.

    Every release becomes T tokens, with embeddings of the token's kind and of the release's place in the event; a
    missing release is zero. The last token is the question. It also carries a linear summary of all releases and an
    embedding of which are present, so even one decoder block sees the sum over releases, in which the signal adds up.

    Args:
        releases: R.
        tokens: K.
        width: d.
        hidden: width of the backbone.
        sigma: z is divided by it.
        plane: float (K, d, P), orthonormal directions in which codes lie. A release is then one token of its P
            coordinates there: what else is in z is noise alone, and carries nothing (a sufficient statistic). None: K
            tokens of d coordinates.
    """

    plane: Tensor | None

    def __init__(
        self, releases: int, tokens: int, width: int, hidden: int, sigma: float, plane: Tensor | None = None
    ) -> None:
        super().__init__()
        self.scale = 1.0 / sigma
        self.register_buffer("plane", None if plane is None else plane.flatten(0, 1), persistent=False)
        if plane is not None:
            tokens, width = 1, plane.shape[2]
        self.token = nn.Linear(width, hidden)
        self.kind = nn.Parameter(torch.zeros(tokens, hidden))
        self.place = nn.Parameter(torch.zeros(releases, hidden))
        self.presence = nn.Parameter(torch.zeros(releases, hidden))
        self.question = nn.Parameter(torch.zeros(hidden))
        self.summary = nn.Linear(releases * tokens * width, hidden, bias=False)
        for parameter in (self.kind, self.place, self.presence, self.question):
            nn.init.normal_(parameter, std=0.02)
        self.releases, self.tokens, self.width, self.hidden = releases, tokens, width, hidden

    @torch.no_grad()
    def point_at(self, plane: Tensor) -> None:
        """Initialise the summary with the directions of the codes, and everything else near zero.

        The sum over releases is then read from the first step, and the noise of all other directions need not be
        unlearned. Training may move it anywhere.

        Args:
            plane: float (K, d, P), orthonormal directions in which codes lie.
        """
        directions = plane.flatten(0, 1).T if self.plane is None else torch.eye(plane.shape[2])  # (P, K*d or P)
        weight = self.summary.weight.view(self.hidden, self.releases, -1)
        weight.mul_(0.1)
        for release in range(self.releases):
            rows = slice(release * len(directions), (release + 1) * len(directions))
            weight[rows] = 0.0
            weight[rows, release] = directions

    def forward(self, z: Tensor, present: Tensor) -> Tensor:
        """z (B, R, K, d) of any number type, present bool (B, R) -> (B, R*T + 1, hidden)."""
        there = present.to(self.question.dtype)  # (B, R)
        scaled = z.to(self.question.dtype) * self.scale * there[:, :, None, None]
        if self.plane is not None:
            scaled = scaled.flatten(2)[:, :, None] @ self.plane  # (B, R, 1, P)
        tokens = self.token(scaled) + self.kind + self.place[:, None, :]  # (B, R, T, hidden)
        tokens = tokens.reshape(-1, self.releases * self.tokens, self.hidden)
        flat = scaled.reshape(-1, self.releases * self.tokens * self.width)
        question = self.question + self.summary(flat) + there @ self.presence  # (B, hidden)
        return torch.cat((tokens, question[:, None, :]), dim=1)
