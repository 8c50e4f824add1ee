"""Admits clients of some networks only, by the number of their autonomous system.

Settings: {"asn": [3320, 64500], "unknown": "refuse"}; `unknown` ("admit" or "refuse") is for an address whose network
nobody knows.
"""

import json

from wit_world import exports
from wit_world.exports.admission import AllocationGrant, AllocationVerdict_Allow, AllocationVerdict_Deny
from wit_world.exports.setup import Manifest, Problem, Severity
from wit_world.imports import settings
from wit_world.imports.types import Denial, DenyCode, Grant, Verdict_Allow

# The relay asks again by then.
VALID_FOR_SECONDS = 3600


class Setup(exports.Setup):
    def describe(self):
        """A constant: which facts are wanted, which counters there are."""
        return Manifest("networks", "0.1.0", ["asn"], [])

    def validate_settings(self, document):
        """Every mistake, with a pointer to where it stands."""
        given = json.loads(document)
        return [Problem(Severity.ERROR, at, message) for at, message in mistakes(given)]


class Admission(exports.Admission):
    def allocate(self, ctx, request):
        given = json.loads(settings.document())
        asn = request.client.geo.asn
        if given["unknown"] == "admit" if asn is None else asn in given["asn"]:
            return AllocationVerdict_Allow(AllocationGrant(grant(), None, None))
        message = "this service is for some networks only"
        return AllocationVerdict_Deny(Denial(DenyCode.FORBIDDEN, message, None, None, ["network"], []))

    def permit_peers(self, ctx, allocation, peers):
        """Whoever was let in may talk to anybody whom the relay's own guard lets them."""
        return [Verdict_Allow(grant()) for _ in peers]


def grant():
    return Grant(VALID_FOR_SECONDS, None, [], [])


def mistakes(given):
    for key in given:
        if key not in ("asn", "unknown"):
            yield f"/{key}", "there is no such key; there are: asn, unknown"
    numbers = given.get("asn")
    if not isinstance(numbers, list) or not numbers:
        yield "/asn", "this has to be a list of numbers of autonomous systems, with at least one"
    else:
        for i, number in enumerate(numbers):
            if type(number) is not int or not 0 < number < 2**32:
                yield f"/asn/{i}", "this has to be a whole number from 1 to 4294967295"
    if given.get("unknown") not in ("admit", "refuse"):
        yield "/unknown", "this has to be \"admit\" or \"refuse\""
