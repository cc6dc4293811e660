/** The event stream of a detour, however it is cut. */
import { expect, test } from 'vitest';
import { Lines } from '../src/platform/detour';

test('events are whole however they are cut', () => {
  const stream = ': comment\n\nevent: open\ndata: key\n\n:\n\ndata: AAAA\r\n\r\nid: 7\ndata:BB\n\n';
  for (let cut = 1; cut < stream.length; cut += 1) {
    const heard: [string, string][] = [];
    const lines = new Lines((name, data) => heard.push([name, data]));
    for (let at = 0; at < stream.length; at += cut) lines.take(stream.slice(at, at + cut));
    expect(heard).toEqual([
      ['open', 'key'],
      ['', 'AAAA'],
      ['', 'BB'],
    ]);
  }
});
