"""The names of joints and channels, and their order in arrays.

World axes: x and y on the floor, z up, metres. Body axes: x forward, y left, z up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["CHANNEL", "CHANNELS", "COCO", "JOINT", "JOINTS", "PAIRED", "RATE", "Floats"]

Floats = NDArray[np.float64]

RATE = 50.0  # samples a second of every actor's channels


CHANNELS = (
    "x",  # where the feet stand, in metres
    "y",
    "yaw",  # where the body faces; this and all below in degrees, but for the last four
    "tip_f",  # the whole body tips forward
    "tip_l",  # and to the left
    "spin",  # then turns about its own length
    "lean",  # the trunk against the legs: forward
    "side",  # to the side
    "twist",  # about its length
    "curl",  # the upper spine
    "nod",  # the head
    "hip_l",
    "hip_r",
    "abd_l",  # the leg to the side (abduction)
    "abd_r",
    "knee_l",
    "knee_r",
    "sho_l",  # the shoulder: the arm forward
    "sho_r",
    "arm_l",  # the arm to the side (abduction)
    "arm_r",
    "elb_l",  # the elbow
    "elb_r",
    "lift",  # metres above the floor of the body's lowest point
    "pin",  # what keeps its place when the pose changes: 0 the feet, 1 the pelvis
    "gait",  # how much the legs step when the feet's place moves
    "sway",  # how much idle motion there is
)
CHANNEL = {name: i for i, name in enumerate(CHANNELS)}
PAIRED = {"hip", "abd", "knee", "sho", "arm", "elb"}  # channels of the left (`_l`) and the right (`_r`) limb


JOINTS = (
    "pelvis",
    "belly",
    "chest",
    "neck",
    "head",
    "chin",
    "crown",
    "tail",
    "shoulder_l",
    "shoulder_r",
    "elbow_l",
    "elbow_r",
    "wrist_l",
    "wrist_r",
    "hand_l",
    "hand_r",
    "hip_l",
    "hip_r",
    "knee_l",
    "knee_r",
    "ankle_l",
    "ankle_r",
    "toe_l",
    "toe_r",
    "heel_l",
    "heel_r",
    "nose",
    "eye_l",
    "eye_r",
    "ear_l",
    "ear_r",
)
JOINT = {name: i for i, name in enumerate(JOINTS)}


# the joints of COCO's 17 key points, in COCO's order
COCO = tuple(
    JOINT[name]
    for name in (
        "nose",
        "eye_l",
        "eye_r",
        "ear_l",
        "ear_r",
        "shoulder_l",
        "shoulder_r",
        "elbow_l",
        "elbow_r",
        "wrist_l",
        "wrist_r",
        "hip_l",
        "hip_r",
        "knee_l",
        "knee_r",
        "ankle_l",
        "ankle_r",
    )
)
