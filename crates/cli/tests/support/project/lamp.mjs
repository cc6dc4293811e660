// An MCP server of the project: one tool, which writes what it was told into a file.
import { appendFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

const schema = { type: 'object', properties: { to: { type: 'string' } }, required: ['to'] };
const answers = {
  initialize: ({ protocolVersion }) => ({
    protocolVersion,
    capabilities: { tools: {} },
    serverInfo: { name: 'lamp', version: '1' },
  }),
  'tools/list': () => ({ tools: [{ name: 'switch', description: 'Switches the lamp.', inputSchema: schema }] }),
  'tools/call': ({ arguments: { to } }) => {
    appendFileSync('lamp.txt', `${to}\n`);
    return { content: [{ type: 'text', text: `the lamp is ${to}` }] };
  },
};

createInterface({ input: process.stdin }).on('line', (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) return;
  const answer = answers[method];
  const body = answer
    ? { result: answer(params) }
    : { error: { code: -32601, message: `no method ${method}` } };
  process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', id, ...body })}\n`);
});
