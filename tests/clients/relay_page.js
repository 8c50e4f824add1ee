// Runs in the page: two RTCPeerConnections of one browser, media from a fake camera, relayed
// candidates only. Resolves to what was decoded.
async ({ url, username, credential, frames, seconds }) => {
  const configuration = {
    iceServers: [{ urls: [url], username, credential }],
    iceTransportPolicy: "relay",
  };
  const sender = new RTCPeerConnection(configuration);
  const receiver = new RTCPeerConnection(configuration);
  const errors = [];
  const connect = (from, to) => {
    from.onicecandidate = ({ candidate }) => {
      if (candidate) to.addIceCandidate(candidate).catch((e) => errors.push(String(e)));
    };
    from.onicecandidateerror = (e) => errors.push(`${e.url} ${e.errorCode} ${e.errorText}`);
  };
  connect(sender, receiver);
  connect(receiver, sender);

  const stream = new MediaStream();
  const video = document.createElement("video");
  video.autoplay = video.muted = true;
  document.body.append(video);
  receiver.ontrack = ({ track }) => {
    stream.addTrack(track);
    video.srcObject = stream;
  };

  const media = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 640, height: 360 } });
  media.getTracks().forEach((track) => sender.addTrack(track, media));
  await sender.setLocalDescription();
  await receiver.setRemoteDescription(sender.localDescription);
  await receiver.setLocalDescription();
  await sender.setRemoteDescription(receiver.localDescription);

  const look = async () => {
    const reports = [...(await receiver.getStats()).values()];
    const byId = new Map(reports.map((r) => [r.id, r]));
    const inbound = reports.find((r) => r.type === "inbound-rtp" && r.kind === "video");
    const pair = reports.find((r) => r.type === "candidate-pair" && r.nominated && r.state === "succeeded");
    return {
      state: receiver.connectionState,
      frames: inbound?.framesDecoded ?? 0,
      packets: inbound?.packetsReceived ?? 0,
      lost: inbound?.packetsLost ?? 0,
      local: pair && byId.get(pair.localCandidateId)?.candidateType,
      remote: pair && byId.get(pair.remoteCandidateId)?.candidateType,
      errors,
    };
  };
  const end = performance.now() + 1000 * seconds;
  let seen = await look();
  while (seen.frames < frames && performance.now() < end) {
    // The next frame is the event; a hidden page has none, so a timer stands behind it.
    await new Promise((resolve) => {
      video.requestVideoFrameCallback(resolve);
      setTimeout(resolve, 250);
    });
    seen = await look();
  }
  sender.close();
  receiver.close();
  return seen;
}
