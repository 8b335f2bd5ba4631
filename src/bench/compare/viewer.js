// What a real browser makes of the room: joins as one who only watches, shows every tile, reads the clock in
// it when the picture is due on the screen, and gives the browser's own figures. Evaluated in a page of the
// server's origin; `settings` stand before it.
(async () => {
  const { room, mode, people, height, tiles, canvas, seconds, clock } = settings;
  const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
  document.body.replaceChildren();
  document.body.style.cssText = 'margin:0;background:#000';

  const peer = new RTCPeerConnection();
  const control = peer.createDataChannel('control', { protocol: 'antiphon.v1' });
  // No more voices than are heard at a time, and VP8 alone: 25 lines of every codec are too long an offer.
  for (let index = 0; index < Math.min(people, 4); index++) {
    peer.addTransceiver('audio', { direction: 'recvonly' });
  }
  const { codecs } = RTCRtpReceiver.getCapabilities('video');
  const slots = [];
  for (let index = 0; index < people; index++) {
    const slot = peer.addTransceiver('video', { direction: 'recvonly' });
    slot.setCodecPreferences(codecs.filter(({ mimeType }) => /VP8|rtx/i.test(mimeType)));
    slots.push(slot);
  }
  await peer.setLocalDescription();
  while (peer.iceGatheringState !== 'complete') await sleep(10);
  const answer = await fetch(`/v1/rooms/${room}/participants?identity=browser`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/sdp' },
    body: peer.localDescription.sdp,
  });
  if (!answer.ok) throw new Error(`the join is answered ${answer.status}`);
  const session = answer.headers.get('Location');
  const opened = new Promise((done) => { control.onopen = done; });
  await peer.setRemoteDescription({ type: 'answer', sdp: await answer.text() });
  await opened;
  const say = (words) => control.send(JSON.stringify(words));
  say({ type: 'mode.choose', mode });
  say({ type: 'slots.wish', slots: slots.map(({ mid }) => ({ mid, max_height: height })) });

  // In a mix one slot has all tiles; else each has its own.
  const isMixed = mode === 'mcu';
  const sightings = [];
  const place = (element, { x, y, width, height: down }) => {
    element.style.cssText = `position:absolute;left:${x}px;top:${y}px;width:${width}px;height:${down}px`;
  };
  const whole = { x: 0, y: 0, width: canvas.width, height: canvas.height };
  const read = async (frame, area, tile, at) => {
    const [across, down] = isMixed
      ? [frame.codedWidth / canvas.width, frame.codedHeight / canvas.height]
      : [frame.codedWidth / area.width, frame.codedHeight / area.height];
    const [left, top] = isMixed ? [area.x * across, area.y * down] : [0, 0];
    const [width, tall] = [area.width * across, area.height * down];
    const strip = {
      x: left + (width * clock.left) / 100, y: top + (tall * clock.top) / 100,
      width: (width * clock.width) / 100, height: (tall * clock.height) / 100,
    };
    // Chroma is half as fine, so a rectangle begins and ends at even pixels.
    const even = (value) => Math.floor(value / 2) * 2;
    const rect = { x: even(strip.x), y: even(strip.y) };
    rect.width = Math.min(even(strip.x + strip.width + 3) - rect.x, even(frame.codedWidth) - rect.x);
    rect.height = Math.min(even(strip.y + strip.height + 3) - rect.y, even(frame.codedHeight) - rect.y);
    const bytes = new Uint8Array(frame.allocationSize({ rect }));
    const [{ offset, stride }] = await frame.copyTo(bytes, { rect });
    let word = 0;
    for (let index = 0; index < 16; index++) {
      const part = strip.width / 16;
      const from = strip.x - rect.x + part * (index + 0.3);
      let [sum, count] = [0, 0];
      for (let y = strip.y - rect.y + strip.height * 0.3; y < strip.y - rect.y + strip.height * 0.7; y++) {
        for (let x = from; x < from + part * 0.4; x++) {
          sum += bytes[offset + Math.round(y) * stride + Math.round(x)];
          count++;
        }
      }
      const mean = sum / count;
      if (mean > 90 && mean < 160) return;
      word = word * 2 + (mean >= 160 ? 1 : 0);
    }
    const number = word >> 4;
    if (((number ^ (number >> 4) ^ (number >> 8) ^ 0b1010) & 15) !== (word & 15)) return;
    sightings.push([tile, number, at]);
  };
  let reads = false;
  slots.forEach(({ receiver }, slot) => {
    if (isMixed && slot > 0) return;
    const video = document.createElement('video');
    video.muted = video.autoplay = true;
    video.srcObject = new MediaStream([receiver.track]);
    place(video, isMixed ? whole : (tiles[slot] ?? whole));
    document.body.append(video);
    let [shown, next] = [slot * 3, 0];
    const look = async (_, { expectedDisplayTime }) => {
      video.requestVideoFrameCallback(look);
      // Each tile in turn: to read all of them in every picture would be work that no viewer has.
      if (!reads || ++shown % (isMixed ? 2 : 5) !== 0) return;
      const tile = isMixed ? next++ % tiles.length : slot;
      // A late call finds a newer picture than it was made for: that one is on the screen by now.
      const at = performance.timeOrigin + Math.max(expectedDisplayTime, performance.now());
      const frame = new VideoFrame(video);
      try {
        await read(frame, tiles[tile], tile, at);
      } finally {
        frame.close();
      }
    };
    video.requestVideoFrameCallback(look);
  });

  const figures = async () => {
    const all = [...(await peer.getStats()).values()];
    const videos = all.filter(({ type, kind }) => type === 'inbound-rtp' && kind === 'video');
    const sum = (key) => videos.reduce((total, report) => total + (report[key] ?? 0), 0);
    const transport = all.find(({ type }) => type === 'transport');
    return {
      at_ms: performance.now(),
      frames_received: sum('framesReceived'),
      frames_decoded: sum('framesDecoded'),
      key_frames: sum('keyFramesDecoded'),
      key_frames_asked: sum('pliCount') + sum('firCount'),
      nacks: sum('nackCount'),
      freezes: sum('freezeCount'),
      frames_dropped: sum('framesDropped'),
      decode_s: sum('totalDecodeTime'),
      jitter_buffer_s: sum('jitterBufferDelay'),
      jitter_buffer_frames: sum('jitterBufferEmittedCount'),
      bytes: transport?.bytesReceived ?? 0,
    };
  };
  await sleep(settings.settle_seconds * 1000);
  reads = true;
  const start = await figures();
  await sleep(seconds * 1000);
  const end = await figures();
  await fetch(session, { method: 'DELETE' });
  peer.close();
  return JSON.stringify({ start, end, sightings });
})()
