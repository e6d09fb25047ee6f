"""resource.k8s.io: claims on devices, their templates, classes of devices, and what drivers publish."""

from steersman.api.kinds.devices.claims import CLAIM, CLASS, TEMPLATE
from steersman.api.kinds.devices.slices import SLICE
from steersman.api.kinds.devices.taintrules import TAINT_RULE

BEHAVIORS = (CLAIM, TEMPLATE, CLASS, SLICE, TAINT_RULE)
