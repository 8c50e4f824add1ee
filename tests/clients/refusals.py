"""aioice's TURN client asks for what a server has to refuse, and reads the code of each refusal.

usage: refusals.py HOST PORT USERNAME PASSWORD OTHER_USERNAME OTHER_PASSWORD PEER
Prints one line per question; exits 0 when every answer had the code of the RFC.
"""

import asyncio
import sys

from aioice import stun, turn


def request(method, **attributes):
    message = stun.Message(message_method=method, message_class=stun.Class.REQUEST)
    for name, value in attributes.items():
        message.attributes[name.replace("_", "-")] = value
    return message


async def code_of(client, message):
    """The code that answers a request: 200 for a success. Whether the answer is signed is not judged."""
    message.attributes["USERNAME"] = client.username
    message.attributes["NONCE"] = client.nonce
    message.attributes["REALM"] = client.realm
    message.add_message_integrity(client.integrity_key)
    transaction = stun.Transaction(message, client.server, client, retransmissions=3)
    client.transactions[message.transaction_id] = transaction
    try:
        await transaction.run()
        return 200
    except stun.TransactionFailed as failure:
        return failure.response.error_code
    except stun.TransactionTimeout:
        return None


def sign_as(client, username, password):
    client.username, client.password = username, password
    client.integrity_key = turn.make_integrity_key(username, client.realm, password)


async def run(host, port, user, other_user, peer):
    loop = asyncio.get_running_loop()
    client = turn.TurnClientUdpProtocol(
        (host, port), username=user[0], password=user[1], lifetime=600, channel_refresh_time=500
    )
    await loop.create_datagram_endpoint(lambda: client, remote_addr=(host, port))
    await client.connect()
    method, udp = stun.Method, turn.UDP_TRANSPORT
    wrong = []

    async def expect(what, code, message):
        got = await code_of(client, message)
        print(f"{what}: {got}, expected {code}")
        if got != code:
            wrong.append(what)

    bind = method.CHANNEL_BIND
    here, there = (peer, 7001), (peer, 7002)
    await expect("a channel", 200, request(bind, CHANNEL_NUMBER=0x4000, XOR_PEER_ADDRESS=here))
    await expect("its number for another peer", 400, request(bind, CHANNEL_NUMBER=0x4000, XOR_PEER_ADDRESS=there))
    await expect("its peer by another number", 400, request(bind, CHANNEL_NUMBER=0x4001, XOR_PEER_ADDRESS=here))
    await expect("a number out of range", 400, request(bind, CHANNEL_NUMBER=0x3FFF, XOR_PEER_ADDRESS=there))
    await expect("a peer of another family", 443, request(method.CREATE_PERMISSION, XOR_PEER_ADDRESS=("::1", 7003)))
    await expect("the relay itself as a peer", 403, request(bind, CHANNEL_NUMBER=0x4002, XOR_PEER_ADDRESS=(host, port)))
    await expect("a second allocation", 437, request(method.ALLOCATE, LIFETIME=600, REQUESTED_TRANSPORT=udp))
    sign_as(client, *other_user)
    await expect("another user's allocation", 441, request(method.REFRESH, LIFETIME=600))
    sign_as(client, user[0], user[1] + "x")
    await expect("a wrong password", 401, request(method.REFRESH, LIFETIME=600))
    sign_as(client, *user)
    await expect("the owner's refresh", 200, request(method.REFRESH, LIFETIME=600))
    await client.delete()
    return not wrong


if __name__ == "__main__":
    _, host, port, name, password, other_name, other_password, peer = sys.argv
    ok = asyncio.run(run(host, int(port), (name, password), (other_name, other_password), peer))
    sys.exit(0 if ok else 1)
