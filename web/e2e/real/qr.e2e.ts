/** The QR codes that people scan, as they are drawn: each decodes to the very link beside it. */
import jsQR from 'jsqr';
import { type Browser, chromium } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { Host } from './host';

let browser: Browser;
let host: Host;

beforeAll(async () => {
  browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
});

afterAll(() => browser.close());

beforeEach(() => {
  host = new Host();
});

afterEach(() => host.stop());

test('the code that the terminal prints decodes to its link', async () => {
  await host.up();
  const printed = await host.onTerminal(/once: \S+/, 'pair');
  const [, link] = /once: (\S+)/.exec(printed) ?? [];
  const lines = printed.split(/\r?\n/).filter((line) => /^[█▀▄ ]{20,}$/.test(line));
  expect(decode(halfBlocks(lines))).toBe(link);
});

test('the code that the app draws decodes to its link', async () => {
  const { link } = await host.up();
  const context = await browser.newContext({ viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 });
  const page = await context.newPage();
  await page.goto(link);
  await page.getByTestId('pair-submit').click();
  await host.accept(await page.getByTestId('pair-code').innerText());
  await page.getByTestId('pair-go').click();
  await page.getByTestId('nav-devices').click();
  await page.getByTestId('make-link').click();
  const made = await page.getByTestId('pair-link-made').inputValue();
  const picture = await page.getByRole('img', { name: 'QR' }).screenshot();
  const pixels = await pixelsOf(picture.toString('base64'));
  expect(made).toMatch(/#pair=/);
  expect(decode(pixels)).toBe(made);
  await context.close();
});

type Pixels = { readonly data: Uint8ClampedArray; readonly width: number; readonly height: number };

/** What a camera's program reads, without trying the colours the other way round. */
function decode({ data, width, height }: Pixels): string | null {
  return jsQR(data, width, height, { inversionAttempts: 'dontInvert' })?.data ?? null;
}

/** The picture that half blocks make on a dark terminal: what is printed shines. */
function halfBlocks(lines: readonly string[]): Pixels {
  const scale = 4;
  const width = Math.max(...lines.map((line) => line.length)) * scale;
  const height = lines.length * 2 * scale;
  const data = new Uint8ClampedArray(width * height * 4).fill(255);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const row = Math.floor(y / scale);
      const sign = lines[row >> 1]?.[Math.floor(x / scale)] ?? ' ';
      const isLit = sign === '█' || sign === (row % 2 === 0 ? '▀' : '▄');
      data.fill(isLit ? 255 : 0, (y * width + x) * 4, (y * width + x) * 4 + 3);
    }
  }
  return { data, width, height };
}

/** The pixels of a PNG, by the browser. */
async function pixelsOf(png: string): Promise<Pixels> {
  const page = await browser.newPage();
  const { data, width, height } = await page.evaluate(async (base64) => {
    const image = new Image();
    image.src = `data:image/png;base64,${base64}`;
    await image.decode();
    const canvas = new OffscreenCanvas(image.width, image.height);
    const context = canvas.getContext('2d');
    context?.drawImage(image, 0, 0);
    const pixels = context?.getImageData(0, 0, image.width, image.height).data ?? [];
    return { data: [...pixels], width: image.width, height: image.height };
  }, png);
  await page.close();
  return { data: new Uint8ClampedArray(data), width, height };
}
