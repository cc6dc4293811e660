/** An agent's form: the plain fields of a JSON schema, and the values a person gives them. */

export type Field = {
  readonly name: string;
  readonly title: string;
  readonly hint: string;
  readonly required: boolean;
} & (
  | { readonly kind: 'string'; readonly long: boolean }
  | { readonly kind: 'number'; readonly integer: boolean }
  | { readonly kind: 'boolean' }
  | { readonly kind: 'enum'; readonly choices: readonly { readonly value: string; readonly label: string }[] }
);

/** What was typed, by field; switches hold booleans. */
export type Values = Record<string, string | boolean>;

/** The fields of a schema; nothing when it is not an object with plain fields. */
export function parseSchema(schema: string): Field[] | null {
  let root: unknown;
  try {
    root = JSON.parse(schema);
  } catch {
    return null;
  }
  if (!isObject(root) || !isObject(root['properties'])) return null;
  const required = Array.isArray(root['required']) ? root['required'] : [];
  const fields: Field[] = [];
  for (const [name, property] of Object.entries(root['properties'])) {
    const field = isObject(property) ? fieldOf(name, property, required.includes(name)) : null;
    if (field === null) return null;
    fields.push(field);
  }
  return fields;
}

export function emptyValues(fields: readonly Field[], schema: string): Values {
  const properties = (JSON.parse(schema) as { properties: Record<string, { default?: unknown }> }).properties;
  return Object.fromEntries(
    fields.map((field) => {
      const given = properties[field.name]?.default;
      if (field.kind === 'boolean') return [field.name, given === true];
      return [field.name, typeof given === 'string' || typeof given === 'number' ? String(given) : ''];
    }),
  );
}

/** The answers as the agent wants them; nothing while some are missing or are no numbers. */
export function answersOf(fields: readonly Field[], values: Values): Record<string, unknown> | null {
  const answers: Record<string, unknown> = {};
  for (const field of fields) {
    const value = values[field.name];
    if (field.kind === 'boolean') {
      answers[field.name] = value === true;
      continue;
    }
    const typed = typeof value === 'string' ? value.trim() : '';
    if (typed === '') {
      if (field.required) return null;
      continue;
    }
    if (field.kind !== 'number') {
      answers[field.name] = typed;
      continue;
    }
    const number = Number(typed);
    if (!Number.isFinite(number) || (field.integer && !Number.isInteger(number))) return null;
    answers[field.name] = number;
  }
  return answers;
}

function fieldOf(name: string, property: Record<string, unknown>, required: boolean): Field | null {
  const title = textOf(property['title']) || name;
  const common = { name, title, hint: textOf(property['description']), required };
  if (Array.isArray(property['enum'])) {
    const labels = Array.isArray(property['enumNames']) ? property['enumNames'] : [];
    const choices = property['enum'].map((value, at) => ({
      value: String(value),
      label: textOf(labels[at]) || String(value),
    }));
    return { ...common, kind: 'enum', choices };
  }
  switch (property['type']) {
    case 'string':
      return { ...common, kind: 'string', long: Number(property['maxLength'] ?? 0) > 200 };
    case 'number':
    case 'integer':
      return { ...common, kind: 'number', integer: property['type'] === 'integer' };
    case 'boolean':
      return { ...common, kind: 'boolean' };
    default:
      return null;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
