"""`hallmark demo`: the main job from training to proof, on real parts, checked at every step."""
