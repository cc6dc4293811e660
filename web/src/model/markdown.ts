/**
 * Markdown as a tree of our own: what is not in it cannot be drawn, so no text of an agent ever
 * becomes HTML, loads an image or runs a script.
 */
import MarkdownIt from 'markdown-it';

export type Inline =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'code'; readonly text: string }
  | { readonly kind: 'break' }
  | { readonly kind: 'strong'; readonly children: readonly Inline[] }
  | { readonly kind: 'em'; readonly children: readonly Inline[] }
  | { readonly kind: 'strike'; readonly children: readonly Inline[] }
  | { readonly kind: 'link'; readonly href: string; readonly children: readonly Inline[] }
  /** Shown by its description and address; never loaded. */
  | { readonly kind: 'image'; readonly src: string; readonly alt: string };

export type Block =
  | { readonly kind: 'paragraph'; readonly children: readonly Inline[] }
  | { readonly kind: 'heading'; readonly level: number; readonly children: readonly Inline[] }
  | { readonly kind: 'code'; readonly language: string; readonly text: string }
  | { readonly kind: 'quote'; readonly children: readonly Block[] }
  | {
      readonly kind: 'list';
      readonly start: number | null;
      readonly items: readonly (readonly Block[])[];
    }
  | { readonly kind: 'table'; readonly rows: readonly (readonly (readonly Inline[])[])[] }
  | { readonly kind: 'rule' };

const parser = new MarkdownIt('default', { html: false, linkify: false, typographer: false, breaks: false });

type Token = ReturnType<typeof parser.parse>[number];

export function parseMarkdown(text: string): Block[] {
  return new Reader(parser.parse(text, {})).blocks(null);
}

class Reader {
  readonly #tokens: readonly Token[];
  #at = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  blocks(end: string | null): Block[] {
    const blocks: Block[] = [];
    for (let token = this.#next(); token !== null && token.type !== end; token = this.#next()) {
      const block = this.#block(token);
      if (block !== null) blocks.push(block);
    }
    return blocks;
  }

  #block(token: Token): Block | null {
    switch (token.type) {
      case 'paragraph_open':
        return { kind: 'paragraph', children: this.#inlineUntil('paragraph_close') };
      case 'heading_open':
        return {
          kind: 'heading',
          level: Number(token.tag.slice(1)) || 1,
          children: this.#inlineUntil('heading_close'),
        };
      case 'fence':
      case 'code_block':
        return { kind: 'code', language: token.info.trim().split(/\s/)[0] ?? '', text: token.content };
      case 'blockquote_open':
        return { kind: 'quote', children: this.blocks('blockquote_close') };
      case 'bullet_list_open':
        return { kind: 'list', start: null, items: this.#items('bullet_list_close') };
      case 'ordered_list_open':
        return {
          kind: 'list',
          start: Number(token.attrGet('start') ?? 1),
          items: this.#items('ordered_list_close'),
        };
      case 'table_open':
        return { kind: 'table', rows: this.#rows() };
      case 'hr':
        return { kind: 'rule' };
      default:
        return token.content === ''
          ? null
          : { kind: 'paragraph', children: [{ kind: 'text', text: token.content }] };
    }
  }

  #items(end: string): Block[][] {
    const items: Block[][] = [];
    for (let token = this.#next(); token !== null && token.type !== end; token = this.#next()) {
      if (token.type === 'list_item_open') items.push(this.blocks('list_item_close'));
    }
    return items;
  }

  #rows(): Inline[][][] {
    const rows: Inline[][][] = [];
    for (let token = this.#next(); token !== null && token.type !== 'table_close'; token = this.#next()) {
      if (token.type === 'tr_open') rows.push([]);
      if (token.type === 'inline') rows.at(-1)?.push(inlines(token.children ?? []));
    }
    return rows;
  }

  #inlineUntil(end: string): Inline[] {
    const found: Inline[] = [];
    for (let token = this.#next(); token !== null && token.type !== end; token = this.#next()) {
      found.push(...inlines(token.children ?? []));
    }
    return found;
  }

  #next(): Token | null {
    const token = this.#tokens[this.#at] ?? null;
    this.#at += 1;
    return token;
  }
}

function inlines(tokens: readonly Token[]): Inline[] {
  const root: Inline[] = [];
  const open: Inline[][] = [root];
  const put = (inline: Inline) => open.at(-1)?.push(inline);
  const begin = (make: (children: Inline[]) => Inline) => {
    const children: Inline[] = [];
    put(make(children));
    open.push(children);
  };
  for (const token of tokens) {
    switch (token.type) {
      case 'text':
      case 'html_inline':
      case 'text_special':
        if (token.content !== '') put({ kind: 'text', text: token.content });
        break;
      case 'code_inline':
        put({ kind: 'code', text: token.content });
        break;
      case 'softbreak':
        put({ kind: 'text', text: '\n' });
        break;
      case 'hardbreak':
        put({ kind: 'break' });
        break;
      case 'strong_open':
        begin((children) => ({ kind: 'strong', children }));
        break;
      case 'em_open':
        begin((children) => ({ kind: 'em', children }));
        break;
      case 's_open':
        begin((children) => ({ kind: 'strike', children }));
        break;
      case 'link_open': {
        const href = String(token.attrGet('href') ?? '');
        begin((children) => ({ kind: 'link', href, children }));
        break;
      }
      case 'strong_close':
      case 'em_close':
      case 's_close':
      case 'link_close':
        if (open.length > 1) open.pop();
        break;
      case 'image':
        put({ kind: 'image', src: String(token.attrGet('src') ?? ''), alt: token.content });
        break;
      default:
        if (token.content !== '') put({ kind: 'text', text: token.content });
    }
  }
  return root;
}
