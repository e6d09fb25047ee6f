"""The Common Expression Language as Kubernetes speaks it: parse, check, estimate, evaluate. Pure.

Called by admission (policies, match conditions) and by the validation of custom resources; never does I/O: what an
expression may ask of others (the authorizer) comes in as a value. Source: cel-spec, and apiserver's pkg/cel.
"""

from steersman.api.cel.program import PER_CALL_LIMIT, Program, compile
from steersman.api.cel.syntax import CelError, CompileError

__all__ = ["PER_CALL_LIMIT", "CelError", "CompileError", "Program", "compile"]
