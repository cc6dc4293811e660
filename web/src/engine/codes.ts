/** The closed list of errors that may cross the wire: number on the wire, word for people. */
import { CODES } from '../protocol/codes';

export type Code = (typeof CODES)[number]['word'];

const INTERNAL = CODES[0];

/** The word of a number; one that a newer peer made is `internal`. */
export function codeOf(number: number): Code {
  return (CODES.find((code) => code.number === number) ?? INTERNAL).word;
}

export function codeNumber(word: Code): number {
  return (CODES.find((code) => code.word === word) ?? INTERNAL).number;
}

/** A word as JSON has it; one that a newer peer made is `internal`. */
export function codeFromWord(word: string): Code {
  return (CODES.find((code) => code.word === word) ?? INTERNAL).word;
}

/** Whether the same thing may succeed when tried again later. */
export function mayRetry(word: Code): boolean {
  return (CODES.find((code) => code.word === word) ?? INTERNAL).retry;
}

/** A failure that people are shown by its code. */
export class Failure extends Error {
  override name = 'Failure';
  readonly code: Code;

  constructor(code: Code, detail?: string) {
    super(detail ?? code);
    this.code = code;
  }
}
