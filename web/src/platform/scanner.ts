/** Reads QR codes with the camera, where the browser knows how. */
interface Detector {
  detect(source: HTMLVideoElement): Promise<{ rawValue: string }[]>;
}

type DetectorClass = {
  new (options: { formats: string[] }): Detector;
  getSupportedFormats(): Promise<string[]>;
};

const LOOK_MILLIS = 250;

function detectorClass(): DetectorClass | undefined {
  return (globalThis as { BarcodeDetector?: DetectorClass }).BarcodeDetector;
}

export async function canScan(): Promise<boolean> {
  const formats = await detectorClass()?.getSupportedFormats();
  return formats?.includes('qr_code') === true && navigator.mediaDevices !== undefined;
}

/** Looks through the camera until a pairing link is found; the result puts the camera away. */
export function scanQr(
  video: HTMLVideoElement,
  found: (text: string) => void,
  failed: () => void,
): () => void {
  const Class = detectorClass();
  let stopped = false;
  let stream: MediaStream | null = null;

  async function run(detector: Detector): Promise<void> {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
    video.srcObject = stream;
    await video.play();
    while (!stopped) {
      const codes = await detector.detect(video);
      const link = codes.find(({ rawValue }) => rawValue.includes('#pair='));
      if (link !== undefined && !stopped) found(link.rawValue);
      await new Promise((resolve) => setTimeout(resolve, LOOK_MILLIS));
    }
  }

  function stop(): void {
    stopped = true;
    for (const track of stream?.getTracks() ?? []) track.stop();
  }

  if (Class === undefined) failed();
  else {
    run(new Class({ formats: ['qr_code'] })).catch(() => {
      if (!stopped) failed();
      stop();
    });
  }
  return stop;
}
