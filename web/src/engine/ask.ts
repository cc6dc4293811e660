/** The digest that a decision carries; the twin of `core::ask::digest`. */
import { concat, hex, sha256, utf8 } from './bytes';

export async function askDigest(ask: string): Promise<string> {
  return hex(await sha256(concat(utf8('farhelm/1/ask\0'), utf8(ask))));
}
