"""Criteria: pure functions of (input, target, mask) that return (loss, count)."""

from deepem.loss.affinity import AffinityLoss
from deepem.loss.balance import BalancedLoss
from deepem.loss.kinds import criterion
from deepem.loss.semantic import SemanticLoss
from deepem.loss.voxel import BCELoss, MSELoss

__all__ = ["AffinityLoss", "BCELoss", "BalancedLoss", "MSELoss", "SemanticLoss", "criterion"]
