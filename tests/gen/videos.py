# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/video/: 6 frames of 48x32 pixels, gray 40 i + x; frame i is shown at TIMES[i], of slow.wmv, which has 3, at i s, of pages.ogv and parts.ts
at i / 25 s. PyAV 18."""
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

W, H, TIMES = 48, 32, (0, 40, 100, 140, 200, 280)  # ms
out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "golden" / "video")
out.mkdir(parents=True, exist_ok=True)


def video(name, codec, pixels, options=None, scale=0, rate=25, times=TIMES, clock=1000, **stream_options):
    with av.open(str(out / name), "w", options={"fflags": "+bitexact", **(options or {})}) as container:
        s = container.add_stream(codec, rate=rate)
        s.width, s.height, s.pix_fmt = W, H, pixels
        s.codec_context.time_base = Fraction(1, clock)
        s.options = stream_options
        for i, t in enumerate(times):
            rows = np.tile(np.uint8(40 * i) + np.arange(W, dtype=np.uint8), (H, 1))
            frame = av.VideoFrame.from_ndarray(rows.astype(np.uint16) * scale if scale else rows, format="gray16le" if scale else "gray")
            frame.pts, frame.time_base = t * clock // 1000, Fraction(1, clock)
            container.mux(s.encode(frame))
        container.mux(s.encode())


video("exact.mkv", "ffv1", "gray")
video("wide.mkv", "ffv1", "gray16le", scale=16)
video("intra.mp4", "mpeg4", "yuv420p", {"movflags": "faststart"}, g="1", qscale="2")
video("intra.avi", "mjpeg", "yuvj420p", qscale="2")
video("parts.ts", "mpeg2video", "yuv420p", times=range(0, 240, 40), clock=25, g="1", qscale="2")
video("slow.wmv", "wmv2", "yuv420p", rate=1, times=range(0, 3000, 1000), qscale="2")
video("pages.ogv", "libvpx", "yuv420p", {"page_duration": "1"}, times=range(0, 240, 40), clock=25, crf="10", b="1M")
turned = out / "turned.mp4"
data = (out / "intra.mp4").read_bytes()
tkhd = data.index(b"tkhd") + 4 + 4 + 36  # the matrix: a quarter to the right
matrix = b"".join(v.to_bytes(4, "big", signed=True) for v in (0, 65536, 0, -65536, 0, 0, H << 16, 0, 1 << 30))
turned.write_bytes(data[:tkhd] + matrix + data[tkhd + 36:])
with av.open(str(out / "sound.mp4"), "w") as container:
    s = container.add_stream("aac", rate=8000)
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    frame.sample_rate = 8000
    container.mux(s.encode(frame))
    container.mux(s.encode())
