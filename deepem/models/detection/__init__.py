"""Detection and instance segmentation in volumes: torchvision's Mask R-CNN extended to 3-D, in plain PyTorch.

Boxes are (z1, y1, x1, z2, y2, x2) in voxels, half-open: a single voxel at the origin is (0, 0, 0, 1, 1, 1).
"""
