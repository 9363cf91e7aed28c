"""ImageNet, and any images in folders of classes: decoded in processes of their own, learned by residual networks."""

from lightball.workloads.imagenet.group_norm import GroupBatchNorm2d
from lightball.workloads.imagenet.layer import DecodeImages
from lightball.workloads.imagenet.network import ResNet
from lightball.workloads.imagenet.workload import imagenet

__all__ = ["DecodeImages", "GroupBatchNorm2d", "ResNet", "imagenet"]
