// Runs in the page: two RTCPeerConnections of one browser, media from a fake camera and microphone, relayed candidates
// only, for so many seconds. Resolves to what both ends have counted by the time that nothing comes any more.
async ({ url, username, credential, seconds }) => {
  const configuration = {
    iceServers: [{ urls: [url], username, credential }],
    iceTransportPolicy: "relay",
  };
  const sender = new RTCPeerConnection(configuration);
  const receiver = new RTCPeerConnection(configuration);
  const connect = (from, to) => {
    from.onicecandidate = ({ candidate }) => candidate && to.addIceCandidate(candidate);
  };
  connect(sender, receiver);
  connect(receiver, sender);

  const media = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 640, height: 360 } });
  media.getTracks().forEach((track) => sender.addTrack(track, media));
  await sender.setLocalDescription();
  await receiver.setRemoteDescription(sender.localDescription);
  await receiver.setLocalDescription();
  await sender.setRemoteDescription(receiver.localDescription);

  const reports = async (connection, type) =>
    [...(await connection.getStats()).values()].filter((report) => report.type === type);
  const sum = (all, field) => all.reduce((total, report) => total + (report[field] ?? 0), 0);
  const look = async () => {
    const outbound = await reports(sender, "outbound-rtp");
    const inbound = await reports(receiver, "inbound-rtp");
    return {
      state: receiver.connectionState,
      sent: sum(outbound, "packetsSent"),
      sent_again: sum(outbound, "retransmittedPacketsSent"),
      received: sum(inbound, "packetsReceived"),
      received_again: sum(inbound, "retransmittedPacketsReceived"),
      lost: sum(inbound, "packetsLost"),
      frames: sum(inbound, "framesDecoded"),
      // The sources that `lost` is about: what is sent again has sources of its own.
      sources: inbound.map((report) => report.ssrc),
    };
  };
  const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

  await pause(1000 * seconds);
  for (const each of sender.getSenders()) await each.replaceTrack(null);
  // The counts are final when they stand still.
  let seen = await look();
  for (let still = 0; still < 4; ) {
    await pause(250);
    const now = await look();
    still = now.sent === seen.sent && now.received === seen.received ? still + 1 : 0;
    seen = now;
  }
  sender.close();
  receiver.close();
  // What they say to the relay at their end leaves before the browser does.
  await pause(500);
  return seen;
}
