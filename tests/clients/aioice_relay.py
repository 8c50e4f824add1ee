"""Two aioice agents, both allowed relayed candidates only, echo datagrams through one TURN server.

usage: aioice_relay.py HOST PORT USERNAME PASSWORD ROUNDS
Prints `echoed N of M`; exits 0 when every datagram came back unchanged.
"""

import asyncio
import sys

import aioice

CONNECT_SECONDS = 20
RECEIVE_SECONDS = 3


def agent(controlling, host, port, username, password):
    return aioice.Connection(
        ice_controlling=controlling,
        components=1,
        use_ipv6=False,
        turn_server=(host, port),
        turn_username=username,
        turn_password=password,
        transport_policy=aioice.TransportPolicy.RELAY,
    )


async def introduce(here, there):
    """Tells `there` what a signalling channel would tell it about `here`."""
    for candidate in here.local_candidates:
        await there.add_remote_candidate(candidate)
    await there.add_remote_candidate(None)
    there.remote_username = here.local_username
    there.remote_password = here.local_password


async def echo(sender, receiver, payload):
    await sender.send(payload)
    return await asyncio.wait_for(receiver.recv(), RECEIVE_SECONDS) == payload


async def run(host, port, username, password, rounds):
    left = agent(True, host, port, username, password)
    right = agent(False, host, port, username, password)
    await asyncio.gather(left.gather_candidates(), right.gather_candidates())
    kinds = {c.type for c in left.local_candidates + right.local_candidates}
    if kinds != {"relay"}:
        print("candidates of kinds", sorted(kinds), "where only relay was asked for")
        return False
    await introduce(left, right)
    await introduce(right, left)
    await asyncio.wait_for(asyncio.gather(left.connect(), right.connect()), CONNECT_SECONDS)
    echoed = 0
    for i in range(rounds):
        # Lengths that are no multiple of four exercise the padding.
        payload = bytes([i % 256]) * (1 + i * 11 % 1200)
        echoed += await echo(left, right, payload)
        echoed += await echo(right, left, payload)
    await asyncio.gather(left.close(), right.close())
    print(f"echoed {echoed} of {2 * rounds}")
    return echoed == 2 * rounds


if __name__ == "__main__":
    _, host, port, username, password, rounds = sys.argv
    sys.exit(0 if asyncio.run(run(host, int(port), username, password, int(rounds))) else 1)
