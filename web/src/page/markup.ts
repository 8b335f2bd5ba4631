/**
 * The chat's tiny markup, parsed to a tree that becomes text nodes and a handful of elements. HTML is never
 * read or made from it: what is not markup is text. Linear in the text's length.
 */

export type Piece =
  | { kind: 'text'; text: string }
  | { kind: 'bold' | 'italic'; children: Piece[] }
  | { kind: 'code'; text: string }
  | { kind: 'block'; text: string }
  | { kind: 'link'; href: string; text: string };

/** Code first, for nothing is marked up within it; then links, so that their underscores stay. */
const TOKEN =
  /```\n?([\s\S]*?)\n?```|`([^`\n]+)`|(https?:\/\/[^\s<>"'`]+)|\*\*(?=\S)([^*\n]*[^*\s])\*\*|(?<![\w*])[*_](?=\S)([^*_\n]*[^*_\s])[*_](?![\w*])/g;

/** Punctuation that ends a sentence rather than an address. */
const TRAILING = /[.,;:!?)\]}'"*_]+$/;

export function parse(text: string): Piece[] {
  const pieces: Piece[] = [];
  let from = 0;
  const plain = (until: number) => {
    if (until > from) pieces.push({ kind: 'text', text: text.slice(from, until) });
  };
  for (const match of text.matchAll(TOKEN)) {
    const [whole, block, code, address, bold, italic] = match;
    plain(match.index);
    from = match.index + whole.length;
    if (block !== undefined) pieces.push({ kind: 'block', text: block });
    else if (code !== undefined) pieces.push({ kind: 'code', text: code });
    else if (bold !== undefined) pieces.push({ kind: 'bold', children: parse(bold) });
    else if (italic !== undefined) pieces.push({ kind: 'italic', children: parse(italic) });
    else if (address !== undefined) {
      const shown = withoutTrailing(address);
      const href = safeAddress(shown);
      pieces.push(href ? { kind: 'link', href, text: shown } : { kind: 'text', text: shown });
      from = match.index + shown.length;
    }
  }
  plain(text.length);
  return pieces;
}

/** Keeps a closing bracket whose opening one is part of the address. */
function withoutTrailing(address: string): string {
  const cut = address.replace(TRAILING, '');
  const rest = address.slice(cut.length);
  return rest.startsWith(')') && cut.includes('(') && !cut.includes(')') ? `${cut})` : cut;
}

/** Only http and https, as the browser itself reads the address. */
function safeAddress(address: string): string | undefined {
  try {
    const url = new URL(address);
    return url.protocol === 'http:' || url.protocol === 'https:' ? url.href : undefined;
  } catch {
    return undefined;
  }
}
