/**
 * Small typed codecs over CBOR, in the shapes that the Rust side derives: arrays of bodies, maps
 * with integer keys, absent fields left out, unknown fields skipped.
 */
import { decode as decodeCbor, encode as encodeCbor } from 'cborg';
import type { Bytes } from './bytes';
import { type Code, codeNumber, codeOf } from './codes';
import { type IdKind, idBytes, idText } from './ids';

/** How one kind of value is written to and read from CBOR's data model. */
export interface Codec<T> {
  to(value: T): unknown;
  from(raw: unknown): T;
}

export type Of<C> = C extends Codec<infer T> ? T : never;

type Field<T> = { readonly at: number; readonly codec: Codec<T>; readonly optional: boolean };
type Fields = Record<string, Field<unknown>>;
type Struct<F extends Fields> = { [K in keyof F]: F[K] extends Field<infer T> ? T : never };

export class Malformed extends Error {
  override name = 'Malformed';
}

export function toCbor<T>(codec: Codec<T>, value: T): Bytes {
  return new Uint8Array(encodeCbor(codec.to(value)));
}

/** Throws `Malformed` when the bytes are not exactly one such value. */
export function fromCbor<T>(codec: Codec<T>, bytes: Uint8Array): T {
  let raw: unknown;
  try {
    raw = decodeCbor(bytes, { useMaps: true, allowIndefinite: false });
  } catch (error) {
    throw new Malformed(`not CBOR: ${String(error)}`);
  }
  return codec.from(raw);
}

export const uint: Codec<number> = {
  to: (value) => value,
  from: (raw) => {
    if (typeof raw === 'number' && Number.isSafeInteger(raw) && raw >= 0) return raw;
    throw new Malformed('expected an unsigned integer');
  },
};

export const text: Codec<string> = {
  to: (value) => value,
  from: (raw) => {
    if (typeof raw === 'string') return raw;
    throw new Malformed('expected a text');
  },
};

export const flag: Codec<boolean> = {
  to: (value) => value,
  from: (raw) => {
    if (typeof raw === 'boolean') return raw;
    throw new Malformed('expected true or false');
  },
};

/** A byte string; of one length, when that is given. */
export function bytes(length?: number): Codec<Bytes> {
  return {
    to: (value) => value,
    from: (raw) => {
      if (!(raw instanceof Uint8Array)) throw new Malformed('expected bytes');
      if (length !== undefined && raw.length !== length) throw new Malformed(`expected ${length} bytes`);
      return new Uint8Array(raw);
    },
  };
}

export function id(kind: IdKind): Codec<string> {
  const raw16 = bytes(16);
  return { to: (value) => idBytes(kind, value), from: (raw) => idText(kind, raw16.from(raw)) };
}

export const code: Codec<Code> = { to: codeNumber, from: (raw) => codeOf(uint.from(raw)) };

/** An enum without data: a number for each word. */
export function words<const W extends Record<number, string>>(table: W): Codec<W[keyof W]> {
  return {
    to: (value) => Number(Object.entries(table).find(([, word]) => word === value)?.[0]),
    from: (raw) => {
      const word = table[uint.from(raw)];
      if (word === undefined) throw new Malformed('a variant that this version does not know');
      return word as W[keyof W];
    },
  };
}

export function list<T>(item: Codec<T>): Codec<T[]> {
  return {
    to: (value) => value.map((one) => item.to(one)),
    from: (raw) => {
      if (!Array.isArray(raw)) throw new Malformed('expected an array');
      return raw.map((one) => item.from(one));
    },
  };
}

export function field<T>(at: number, codec: Codec<T>): Field<T> {
  return { at, codec, optional: false };
}

/** A field that may be absent, which reads as null. */
export function maybe<T>(at: number, codec: Codec<T>): Field<T | null> {
  const nullable: Codec<T | null> = {
    to: (value) => (value === null ? null : codec.to(value)),
    from: (raw) => (raw === null || raw === undefined ? null : codec.from(raw)),
  };
  return { at, codec: nullable, optional: true };
}

/** A struct as a map with integer keys. */
export function struct<F extends Fields>(fields: F): Codec<Struct<F>> {
  return {
    to: (value) => {
      const map = new Map<number, unknown>();
      for (const [name, { at, codec }] of Object.entries(fields)) {
        const raw = codec.to(value[name as keyof F]);
        if (raw !== null) map.set(at, raw);
      }
      return map;
    },
    from: (raw) => {
      if (!(raw instanceof Map)) throw new Malformed('expected a map');
      return readFields(fields, (at) => raw.get(at));
    },
  };
}

/** A struct as an array, each field at its place; absent ones at the end are left out. */
export function tuple<F extends Fields>(fields: F): Codec<Struct<F>> {
  return {
    to: (value) => {
      const array: unknown[] = [];
      for (const [name, { at, codec }] of Object.entries(fields)) {
        array[at] = codec.to(value[name as keyof F]);
      }
      while (array.length > 0 && array.at(-1) === null) array.pop();
      return Array.from(array, (raw) => raw ?? null);
    },
    from: (raw) => {
      if (!Array.isArray(raw)) throw new Malformed('expected an array');
      return readFields(fields, (at) => raw[at]);
    },
  };
}

function readFields<F extends Fields>(fields: F, read: (at: number) => unknown): Struct<F> {
  const value: Record<string, unknown> = {};
  for (const [name, { at, codec, optional }] of Object.entries(fields)) {
    const raw = read(at);
    if (!optional && (raw === undefined || raw === null)) throw new Malformed(`the field ${name} is missing`);
    value[name] = codec.from(raw);
  }
  return value as Struct<F>;
}
