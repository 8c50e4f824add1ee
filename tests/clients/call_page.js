// Runs in the page: one end of a call, relayed candidates only, that sends a fake camera and decodes the other's.
// Leaves window.end, whose functions the test calls. Descriptions are exchanged with all their candidates.
async ({ url, username, credential }) => {
  const connection = new RTCPeerConnection({
    iceServers: [{ urls: [url], username, credential }],
    iceTransportPolicy: "relay",
  });
  const errors = [];
  connection.onicecandidateerror = (e) => errors.push(`${e.url} ${e.errorCode} ${e.errorText}`);
  const gathered = new Promise((resolve) => {
    connection.onicegatheringstatechange = () => {
      if (connection.iceGatheringState === "complete") resolve();
    };
  });

  const stream = new MediaStream();
  const video = document.createElement("video");
  video.autoplay = video.muted = true;
  document.body.append(video);
  connection.ontrack = ({ track }) => {
    stream.addTrack(track);
    video.srcObject = stream;
  };
  const media = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 640, height: 360 } });
  media.getTracks().forEach((track) => connection.addTrack(track, media));

  const described = async () => {
    await connection.setLocalDescription();
    await gathered;
    return connection.localDescription.toJSON();
  };
  const look = async () => {
    const reports = [...(await connection.getStats()).values()];
    const byId = new Map(reports.map((r) => [r.id, r]));
    const inbound = reports.find((r) => r.type === "inbound-rtp" && r.kind === "video");
    const pair = reports.find((r) => r.type === "candidate-pair" && r.nominated && r.state === "succeeded");
    const [local, remote] = [pair?.localCandidateId, pair?.remoteCandidateId].map((id) => byId.get(id));
    return {
      state: connection.connectionState,
      frames: inbound?.framesDecoded ?? 0,
      packets: inbound?.packetsReceived ?? 0,
      lost: inbound?.packetsLost ?? 0,
      local: { type: local?.candidateType, address: local?.address, server: local?.url },
      remote: { type: remote?.candidateType, address: remote?.address },
      errors,
    };
  };
  window.end = {
    offer: described,
    answer: async (offer) => {
      await connection.setRemoteDescription(offer);
      return described();
    },
    accept: (answer) => connection.setRemoteDescription(answer),
    look,
  };
}
