"""The same job as `transforms.energy` in other ways: energy per GPU and slot from segments.

Each takes paths of segments and gives a frame of gpu_uuid, slot and energy_mj (counter where there is one, else
the trapezoid of power, across at most half a minute), whole millijoules. A test holds them to our own figures.
"""
